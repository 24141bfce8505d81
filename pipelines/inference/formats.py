"""A network in other formats: with inputs of a fixed size where the format wants one, and asked again in it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from components.shared.errors import UserError, first_line

TOLERANCE = 1e-4
_OPSET = 17  # of 2022: onnxruntime 1.12 and later, and what else reads ONNX


def with_input(network: Any, shape: tuple[int | None, int | None], dtype: str) -> Any:
    """The same network, its layers shared, for images of another shape or type.

    Args:
        network: from images (N, H, W, C) with values from 0 to 255.
        shape: height and width of the images in pixels; None leaves them free. With fixed ones the layer `Resizing`
            becomes two products with constant matrices: ONNX and LiteRT have no counterpart to its antialiasing.
        dtype: of the images, `uint8` or `float32`.

    Raises:
        ValueError: the network takes images of one other size.
    """

    def call(layer: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.layers.Resizing):
            # not told so, it takes itself and all that follows to be training
            return layer(images, training=False) if None in images.shape[1:] else _resized(layer, images)
        return layer(images, *args, **kwargs)

    images = keras.Input((*shape, network.input_shape[-1]), dtype=dtype, name="images")
    whole = keras.Model(network.inputs[0], network.outputs[0], name=network.name)
    return keras.models.clone_model(
        whole, input_tensors=images, clone_function=lambda layer: layer, call_function=call
    )


def _resized(layer: Any, images: Any) -> Any:
    """What a layer `Resizing` makes of images of a known shape, by matrix products."""
    height, width, channels = images.shape[1:]
    if layer.crop_to_aspect_ratio:
        # as Keras's `resize` cuts out the centre
        high = min(height, int(width * layer.height / layer.width))
        wide = min(width, int(height * layer.width / layer.height))
        top, left = (height - high) // 2, (width - wide) // 2
        images = images[:, top : top + high, left : left + wide]
        height, width = high, wide
    if (height, width) == (layer.height, layer.width):
        return images
    rows, columns = _weights(layer, height, 0), _weights(layer, width, 1)
    images = ops.matmul(rows, ops.reshape(images, (-1, height, width * channels)))
    return ops.matmul(columns, ops.reshape(images, (-1, layer.height, width, channels)))


def _weights(layer: Any, length: int, axis: int) -> np.ndarray:
    """Weights of a resizing along one axis: float32, shape (resized length, length); asked of Keras itself."""
    lines = np.expand_dims(np.eye(length, dtype="float32"), (2, 3) if axis == 0 else (1, 3))
    size = (layer.height, 1) if axis == 0 else (1, layer.width)
    resized = keras.ops.image.resize(lines, size, layer.interpolation, layer.antialias)
    return np.ascontiguousarray(np.reshape(keras.ops.convert_to_numpy(resized), (length, max(size))).T)


def write(network: Any, kind: str, path: Path) -> None:
    """Write a network.

    Args:
        network: as from `with_input`.
        kind: `keras`, `saved_model` (a folder), `onnx` or `tflite`.
        path: to write.

    Raises:
        UserError: the library that is needed is missing or can't do it.
    """
    try:
        with _quietly():
            if kind == "keras":
                network.save(path)
            elif kind == "onnx":
                _write_onnx(network, path)
            else:
                name = {"saved_model": "tf_saved_model", "tflite": "litert"}[kind]
                network.export(str(path), format=name, verbose=False)
    except OSError as error:
        raise UserError(
            f"{path.name}: can't be written: {error.strerror or first_line(error)}; make room"
        ) from None
    except Exception as error:  # each converter has its own
        raise UserError(
            f"{path.name}: the network can't be written so: {first_line(error)}; try another format"
        ) from None


def _write_onnx(network: Any, path: Path) -> None:
    """Write a network as ONNX.

    Not by Keras's own `export`: it takes the constants of a layer `Normalization` for further inputs, and does not
    know the operation that TensorFlow makes of GELU.
    """
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    taken = tf.TensorSpec((None, *network.input_shape[1:]), network.inputs[0].dtype)
    called = tf.function(lambda images: network(images, training=False), input_signature=[taken])
    frozen = convert_variables_to_constants_v2(called.get_concrete_function())
    (images,), (answers,) = frozen.inputs, frozen.outputs
    tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        name=network.name,
        input_names=[images.name],
        output_names=[answers.name],
        tensors_to_rename={images.name: "images", answers.name: "answers"},
        opset=_OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
        output_path=path,
    )


def _erfc(graph: Any, node: Any, *_: Any) -> None:
    """Write erfc(x) as 1 − erf(x) in a graph of tf2onnx: ONNX has no such operation."""
    shapes, types = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    one = graph.make_const(f"{node.name}/one", np.float32(1)).output[0]
    erf = graph.make_node("Erf", node.input).output[0]
    graph.make_node("Sub", [one, erf], outputs=node.output, name=node.name, shapes=shapes, dtypes=types)


def ask(kind: str, path: Path, images: np.ndarray) -> np.ndarray:
    """The answers of a written network, by the library that will run it: float32, shape (N, D)."""
    answers: np.ndarray
    if kind == "keras":
        answers = keras.saving.load_model(path, compile=False).predict_on_batch(images)
    elif kind == "saved_model":
        import tensorflow as tf

        # its functions do not keep it
        loaded = tf.saved_model.load(str(path))
        answers = loaded.serve(images).numpy()
    elif kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        (answers,) = session.run(None, {session.get_inputs()[0].name: images})
    else:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(taken["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], images)
        interpreter.invoke()
        answers = interpreter.get_tensor(given["index"])
    return np.asarray(answers)


def check(network: Any, kind: str, path: Path, size: tuple[int, int], dtype: str) -> float:
    """Ask a written network and the model that it was made of the same; returns the largest difference.

    Args:
        network: the model, from uint8 images.
        kind, path: as for `write`.
        size: height and width of the images to ask about.
        dtype: of the images that the written one takes.

    Raises:
        UserError: it does not load, or answers something else.
    """
    images = np.random.default_rng(0).integers(0, 256, (3, *size, network.input_shape[-1]), np.uint8)
    expected = np.asarray(network.predict_on_batch(images))
    try:
        with _quietly():
            answers = ask(kind, path, images.astype(dtype))
    except Exception as error:  # each runtime has its own
        raise UserError(
            f"{path.name}: written, but does not run: {first_line(error)}; try another format"
        ) from None
    difference = float(np.abs(answers - expected).max()) if answers.shape == expected.shape else np.inf
    # also where it is not a number
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise UserError(f"{path.name}: answers otherwise than the model, by {difference:.2g}; try another format")
    return difference


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the libraries print of their work, C++ in them too; failures are raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(io.StringIO()):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
