"""The commands that apply a model to image files: predict, embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.command_line import new_group

app = new_group("")

Images = Annotated[list[str], typer.Argument(metavar="IMAGES", help="image files and folders of them")]


@app.command()
def predict(
    images: Images,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="models:/<name>@<alias>, models:/<name>/<version>, or a .keras file; default: the champion of "
            "the registry section in params.yaml",
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", help="the K likeliest classes")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="write a table, .csv or .parquet, instead of printing; K rows per image")
    ] = None,
) -> int:
    """Name the classes of image files with a registered model.

    $ contrastive predict photo.jpg folder/
    $ contrastive predict folder/ --out predictions.parquet

    Without --out they are printed: path, class, probability. Images go through
    what the dataset's went through: upright, center square, the size the model
    was trained on. Files that can't be read are named on the error stream and
    skipped; the exit status is then 1.
    """
    from pipelines.inference.predict import predict_files

    return predict_files(images, model, top, out)


@app.command()
def embed(
    images: Images,
    out: Annotated[Path, typer.Option(help="the table to write, .parquet")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="a .keras file, or an address such as models:/<name>@champion; of a classifier, the features "
            "that its head is given; default: the repository's encoder/encoder.keras",
        ),
    ] = None,
) -> int:
    """Write an encoder's features of image files as Parquet.

    $ contrastive embed folder/ --out features.parquet

    For search, clustering or a classifier of one's own. One row per image:
    `path`, and `features`, a list of float32, which pandas turns into a matrix
    by `np.stack(pd.read_parquet("features.parquet").features)`. Files that
    can't be read are named on the error stream and skipped; the exit status is
    then 1.
    """
    from pipelines.inference.embed import embed_files

    return embed_files(images, model, out)
