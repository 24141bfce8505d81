"""Has a run on the sample become worse, or dearer? Its accuracies, steps and operations against their bounds.

    make repro && python -m benchmarks.guard

Nothing is timed: steps come from the records of the run, and TensorFlow counts the floating-point operations of one
image through the encoder. Accuracies are means over the replicates; four runs with other seeds had 87.0 to 89.5
(probe), 86.7 to 90.9 (fine-tuned) and 79.1 to 80.4 per cent (baseline): a fall below the bounds is no bad luck.
Whoever makes the default run better raises them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from components.shared.artifacts import Result, read_record
from components.shared.errors import UserError
from components.shared.evaluation.measured import read_measured
from components.shared.params.composing import compose_params

# least mean accuracy on test images
LEAST = {"probe": 0.83, "finetune": 0.80, "baseline": 0.69}
# most optimisation steps of a replicate
MOST_STEPS = {"encoder": 2_286, "baseline": 700, "finetune": 700}
# most floating-point operations of one image through the encoder
MOST_OPERATIONS = 4_000_000


def operations(encoder: Path, image_size: int) -> int:
    """Floating-point operations of one RGB image through a saved encoder, without its resizing."""
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(encoder, compile=False)
    network = next(layer for layer in reversed(model.layers) if isinstance(layer, keras.Model))
    image = tf.TensorSpec((1, image_size, image_size, 3), "float32")
    graph = tf.function(lambda pixels: network(pixels, training=False)).get_concrete_function(image).graph
    profiler = tf.compat.v1.profiler
    counted = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    found = profiler.profile(graph, options=counted.with_empty_output().build(), cmd="op")
    return int(found.total_float_ops)


def worse(folder: Path) -> Iterator[str]:
    """What lies beyond its bound in a project's folder after a run: a line each.

    Raises:
        UserError: a result is missing.
    """
    known = read_measured(folder / "evaluation").accuracies
    if not known:
        yield "evaluation: the test set stayed closed, for no model was ahead on held-out images"
    for name, least in LEAST.items() if known else ():
        mean = sum(known[name]) / len(known[name])
        if mean < least:
            yield f"{name}: {100 * mean:.1f} % of the test images right; at least {100 * least:.1f} % is asked for"
    defaults = compose_params()[0]
    for name, most in MOST_STEPS.items():
        details = read_record(folder / name, Result).details
        steps = details.get("optimisation_steps")
        if steps is None:
            steps = details["epochs"] * (details["images"] // defaults.runtime.batch_size)
        if steps > most:
            yield f"{name}: {steps:,} optimisation steps; at most {most:,} are asked for"
    found = operations(folder / "encoder" / "encoder.keras", defaults.data.image_size)
    if found > MOST_OPERATIONS:
        yield f"encoder: {found:,} operations an image; at most {MOST_OPERATIONS:,} are asked for"


def main() -> None:
    """Print what is worse, and fail if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="of the project; default: this one")
    lines = list(worse(parser.parse_args().folder))
    print("\n".join(lines) if lines else "no accuracy is lower, and nothing takes more steps or operations")
    if lines:
        raise SystemExit(1)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
