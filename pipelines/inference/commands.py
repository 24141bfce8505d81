"""The commands that use a model: predict, embed, similar, export, push, label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.command_line import new_group

app = new_group("")
label_app = new_group("Which images to label.")

Images = Annotated[
    list[str], typer.Argument(metavar="IMAGES", help="files, folders, patterns, addresses, Parquet files")
]
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="a .keras file, models:/<name>@<alias> or models:/<name>/<version>"),
]


@app.command()
def predict(
    images: Images,
    model: Model = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="the K likeliest classes")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="write a table, .csv or .parquet, instead of printing; K rows per image")
    ] = None,
) -> int:
    """Name the classes of image files with a registered model.

    $ contrastive predict photo.jpg folder/
    $ contrastive predict folder/ --out predictions.parquet

    IMAGES are files, folders, patterns ("photos/**/*.jpg"), addresses that
    fsspec knows (https, s3, gs, …: a file, a folder or a pattern) and Parquet
    files in the Hugging Face layout, whose rows are named <file>#<row>. They
    are read a few at a time, however many there are.

    Without --model it is the champion of the registry section in params.yaml.
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
    model: Model = None,
) -> int:
    """Write an encoder's features of image files as Parquet.

    $ contrastive embed folder/ --out features.parquet

    IMAGES as for predict. For search, clustering or a classifier of one's own. Without --model it is
    the repository's encoder/encoder.keras; of a classifier, the features are
    those that its head is given. One row per image:
    `path`, and `features`, a list of float32, which pandas turns into a matrix
    by `np.stack(pd.read_parquet("features.parquet").features)`. Files that
    can't be read are named on the error stream and skipped; the exit status is
    then 1.
    """
    from pipelines.inference.embed import embed_files

    return embed_files(images, model, out)


@app.command()
def similar(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="an image file, or the address of one")],
    images: Images,
    model: Model = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, max=1000, help="the K nearest images")] = 24,
    out: Annotated[Path, typer.Option(help="the page to write, .html")] = Path("similar.html"),
) -> int:
    """Show the images most like a given one, by an encoder's features.

    $ contrastive similar photo.jpg folder/ --model models:/photos@champion

    Prints path and cosine similarity, the nearest first, and writes a page
    with the pictures, which needs nothing else. IMAGES and --model as for
    embed. It tells what the encoder takes to be alike: look at some before
    you trust its features.
    """
    from pipelines.inference.similar import show_similar

    return show_similar(query, images, model, top, out)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="as --model of predict, or an encoder")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the file to write; with saved_model, the folder")],
    kind: Annotated[Literal["keras", "saved_model", "onnx", "tflite"], typer.Option("--format", help="to write")],
    features: Annotated[
        bool, typer.Option("--features", help="of a classifier, the encoder below its head")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE", help="of the images, 96 or 480x640; onnx and tflite only [default: as trained]"
        ),
    ] = None,
    dtype: Annotated[
        Literal["uint8", "float32"], typer.Option("--input", help="type of the images; values are 0 to 255")
    ] = "uint8",
) -> None:
    """Write a classifier or an encoder in another format.

    $ contrastive export --format onnx models:/photos@champion photos.onnx
    $ contrastive export --format tflite --size 480x640 finetune/classifier.keras m.tflite

    It takes raw images (N, height, width, channels), values 0 to 255: scaling and
    resizing are inside. Files of Keras and SavedModels resize images of any
    size; onnx and tflite take one size, by default the one trained on. The
    result is loaded and asked before it is put in its place. OUT.json beside
    it tells what it takes, what it gives, and the class names in order.
    """
    from pipelines.inference.export import export_model

    export_model(model, out, kind, features, size, dtype)


@app.command()
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="as --model of predict, or an encoder")],
    repository: Annotated[str, typer.Argument(metavar="hf://OWNER/NAME", help="made if it is not there")],
    public: Annotated[bool, typer.Option("--public", help="for everybody to see; private without it")] = False,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="of the model, such as apache-2.0; none is named without it")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the card and the files; nothing is sent")
    ] = False,
) -> None:
    """Push a model with its card to a repository of the Hugging Face Hub.

    $ contrastive push models:/photos@champion hf://acme/photos --dry-run
    $ contrastive push models:/photos@champion hf://acme/photos

    One commit: the registry's model card, with the test accuracy and its
    interval in the form that the Hub reads; model.keras as it was judged, with
    a .json that tells its classes; and the same unpacked, which
    keras.saving.load_model("hf://acme/photos") loads. The card of what is no
    champion begins with that; what a reviewer decided against is not pushed.
    The card names where the data came from and the git commit: read it first.

    The token is that of `hf auth login`, or HF_TOKEN; HF_ENDPOINT names
    another hub. Needs the extra `hub`.
    """
    from pipelines.inference.hub import push_model

    push_model(model, repository, public, license, dry_run)


@label_app.command(name="next")
def label_next(
    count: Annotated[int, typer.Argument(metavar="N", min=1, help="images to propose")],
    dataset: Annotated[Path, typer.Option(metavar="DIR", help="written by the step ingest")] = Path("dataset"),
    model: Model = None,
    out: Annotated[Path, typer.Option(help="the table to write, .csv")] = Path("label-next.csv"),
    seed: Annotated[int, typer.Option(min=0, help="of the clustering")] = 0,
) -> None:
    """Propose which unlabelled images to label next: diverse ones, and uncertain.

    $ contrastive label next 100 --dataset dataset --out label-next.csv

    Each stands for many others in the encoder's features, and the labels so
    far do not tell its class: more is learned from it than from an image
    chosen at random. The table's columns: path, row (in the dataset's
    unlabelled images), margin between its two likeliest classes, stands_for
    (images in its cluster). --model as for embed. Label them, add them to the
    data, ingest again, and ask again.
    """
    from pipelines.inference.label import label_next

    label_next(count, dataset, model, out, seed)
