"""A model for use elsewhere: Keras's own file, TensorFlow's SavedModel, ONNX or LiteRT."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.shared.errors import UserError
from pipelines.inference.model import description_of, load_ready

if TYPE_CHECKING:
    from pipelines.inference.networks import ReadyModel

Format = Literal["keras", "saved_model", "onnx", "tflite"]
# the ending that its readers look for; a SavedModel is a folder
ENDINGS: dict[Format, str] = {"keras": ".keras", "saved_model": "", "onnx": ".onnx", "tflite": ".tflite"}
ANY_SIZE = ("keras", "saved_model")
# what writes the format, and what will run it: the result is asked before it counts
_NEEDS = {"onnx": ("tf2onnx", "onnxruntime"), "tflite": ("ai_edge_litert",)}
_LARGEST_SIDE = 4096


def export_model(
    address: str, out: Path, kind: Format, features: bool, size: str | None, dtype: Literal["uint8", "float32"]
) -> None:
    """Write a model in another format, ask both the same, and put it in its place if they agree.

    Beside it goes `<out>.json`: what it takes and gives, and the class names in the order of its outputs.

    Args:
        address: see `load_ready`.
        out: file or, of a SavedModel, folder to write.
        kind: the format.
        features: export the encoder: of a classifier, what its head is given.
        size: side of the images, `96`, or height and width, `480x640`, in pixels; None is the trained one, and any
            where the format can resize.
        dtype: of the images, whose values are 0 to 255.

    Raises:
        UserError: no such model, the place or the size does not suit the format, or the answers differ.
    """
    _check_place(out, kind)
    sides = _sides(size, kind)
    if missing := [name for name in _NEEDS.get(kind, ()) if find_spec(name) is None]:
        raise UserError(
            f"--format {kind}: {' and '.join(missing)} not installed; `uv pip install '.[export]'` installs them"
        )
    model = load_ready(address)
    model = model.encoder() if features else model
    # only here: Keras has started
    import keras

    from pipelines.inference import formats

    if kind != "keras" and keras.backend.backend() != "tensorflow":
        raise UserError(
            f"--format {kind}: written by TensorFlow only, not by {keras.backend.backend()}; unset KERAS_BACKEND"
        )
    free = kind in ANY_SIZE and model.network.input_shape[1] is None
    fixed = sides or (model.size, model.size)
    try:
        network = formats.with_input(model.network, (None, None) if free else fixed, dtype)
    except ValueError:
        raise UserError(f"--size {size}: {model.name} takes {model.size}×{model.size} only; leave it out") from None
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        written = Path(folder) / out.name
        formats.write(network, kind, written)
        # free sides: not the trained size, so that its resizing is tried too
        difference = formats.check(
            model.network, kind, written, (model.size + 9, model.size + 4) if free else fixed, dtype
        )
        if out.is_dir():
            shutil.rmtree(out)
        written.replace(out)
    description = describe(model, kind, None if free else fixed, dtype)
    description_of(out).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    images = "images of any size" if free else f"images of {fixed[0]}×{fixed[1]}"
    print(f"{out}: {model.name}, {dtype} {images} to {description['gives']}; differs by {difference:.1g} at most")


def _check_place(out: Path, kind: Format) -> None:
    if ENDINGS[kind] and out.suffix != ENDINGS[kind]:
        raise UserError(f"{out}: a file of --format {kind} ends in {ENDINGS[kind]}; name it so")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}/; make it, or choose another place")
    if out.exists() and out.is_dir() != (kind == "saved_model"):
        raise UserError(f"{out}: is {'a folder' if out.is_dir() else 'a file'} already; choose another place")
    if kind == "saved_model" and out.exists() and not (out / "saved_model.pb").exists():
        raise UserError(f"{out}: is a folder of something else; choose another place")


def _sides(size: str | None, kind: str) -> tuple[int, int] | None:
    if size is None:
        return None
    if kind in ANY_SIZE:
        raise UserError(f"--size {size}: --format {kind} takes images of any size; leave it out")
    found = re.fullmatch(r"(\d{1,4})(?:[x×](\d{1,4}))?", size)
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise UserError(f"--size {size}: must be pixels, 96 or 480x640 (height x width), at most {_LARGEST_SIDE}")
    return sides


def describe(model: ReadyModel, kind: str, size: tuple[int, int] | None, dtype: str) -> dict[str, Any]:
    """What an exported model takes and gives, as `<out>.json` says it.

    Args:
        model: that was exported.
        kind: its format.
        size: height and width of its images; None takes any.
        dtype: of its images.
    """
    shape = [None, *(size or (None, None)), model.channels]
    kind_of_values = {1: "grey", 3: "RGB", 4: "four channels"}[model.channels]
    found: dict[str, Any] = {
        "model": model.name,
        "format": kind,
        "takes": {"shape": shape, "dtype": dtype, "values": f"{kind_of_values}, 0 to 255"},
    }
    if model.gives_probabilities():
        return {**found, "gives": "class probabilities", "class_names": model.labels()}
    return {**found, "gives": f"{model.network.output_shape[-1]} features"}
