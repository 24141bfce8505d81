"""The steps as Kubeflow components: their inputs and outputs, and one call each.

KFP copies a function's source, docstring included, into the compiled pipeline; so each stands alone, and this
module has no `from __future__ import annotations`, which KFP can't read. The page shows the descriptions of inputs
and outputs. Settings are text, because KFP would turn whole numbers into fractions.
"""

from typing import NamedTuple

from kfp import dsl


def compose(
    overrides: list[str],
    data_version: str,
    replicates: str,
) -> NamedTuple(  # type: ignore[valid-type]
    "Steps",
    ingest=str,
    validate=str,
    pretrain=str,
    search=str,
    probe=str,
    baseline=str,
    finetune=str,
    champion=str,
    evaluate=str,
    register=str,
    gather=str,
    state=str,
):
    """Check the options, and hand each step only what its result depends on.

    Args:
        overrides: Options such as data=cifar10 or runtime.epochs=200.
        data_version: Names the state of the data; empty = found by looking at the source.
        replicates: The seeds that the pipeline was compiled for, as JSON; the options must mean the same.

    Returns:
        ingest: Parameters and code of ingest, and the state of the data.
        validate: Parameters and code of validate.
        pretrain: Parameters and code of pretrain.
        search: Parameters and code of search.
        probe: Parameters and code of probe.
        baseline: Parameters and code of baseline.
        finetune: Parameters and code of finetune.
        champion: Parameters and code of champion.
        evaluate: Parameters and code of evaluate.
        register: Parameters and code of register.
        gather: Code that gathers replicates.
        state: A digest of all these; empty = the data can't be looked at.
    """
    from collections import namedtuple

    from pipelines.kubeflow import runtime

    found = runtime.settings_of_steps(overrides, data_version, replicates)
    every = {**found, "state": runtime.state_of(found)}
    return namedtuple("Steps", every)(**every)


def look(overrides: list[str], state: str, ingest: str) -> str:
    """Compare data, options and code with those of the last run that ended well, and images with the champion's.

    Args:
        overrides: The options of the run.
        state: A digest of data, options and code; empty = not known, which counts as changed.
        ingest: Parameters and code of ingest, and the state of the data.

    Returns:
        Output: What was found, changed or unchanged.
    """
    from pipelines.kubeflow import runtime

    return "changed" if runtime.has_changed(overrides, state, ingest) else "unchanged"


def pull() -> None:
    """Run in the image for GPUs, without one: where it can't be pulled, it ends before a training waits."""
    print("the image for GPUs is here")


def ingest(
    settings: str,
    dataset: dsl.Output[dsl.Dataset],
    counts: dsl.Output[dsl.Metrics],
    overview: dsl.Output[dsl.Markdown],
) -> None:
    """Read a source of images, split it, and write it as arrays.

    Args:
        settings: Parameters and code version, and the state of the data.

    Returns:
        dataset: Images and labels of each split, with a manifest.
        counts: Number of images of each split.
        overview: Images of each class and split.
    """
    from pipelines.kubeflow import runtime

    runtime.run("ingest", settings, [], dataset, metrics=counts, page=overview)


def validate(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    verdict: dsl.Output[dsl.Markdown],
) -> None:
    """Check that the dataset is fit to learn from; a critical failure ends the run.

    Args:
        settings: Parameters and code version.
        dataset: Images and labels.

    Returns:
        validation: Statistics, schema, verdict and Great Expectations' Data Docs (docs/index.html).
        metrics: Number of expectations that hold and that fail.
        verdict: Each expectation and what was observed.
    """
    from pipelines.kubeflow import runtime

    runtime.run("validate", settings, [dataset], validation, metrics=metrics, page=verdict)


def pretrain(
    settings: str,
    seed: int,
    dataset: dsl.Input[dsl.Dataset],
    encoder: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    views: dsl.Output[dsl.HTML],
) -> None:
    """Train an encoder by contrast on all images.

    Args:
        settings: Parameters and code version.
        seed: Of the replicate.
        dataset: Images and labels; the labels serve only the online probe and methods that use them.

    Returns:
        encoder: The encoder, from uint8 images to features (encoder.keras), and its curves.
        metrics: The last epoch's loss and accuracies.
        views: Images and the augmented views that the encoder learned to match.
    """
    from pipelines.kubeflow import runtime

    runtime.run("pretrain", settings, [dataset], encoder, seed, metrics=metrics, page=views)


def search(
    settings: str,
    seed: int,
    dataset: dsl.Input[dsl.Dataset],
    encoder: dsl.Input[dsl.Model],
    search: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Look for the best training of baseline and fine-tuning in the same space, on held-out images.

    Args:
        settings: Parameters and code version.
        seed: Of the first replicate, and of all trials.
        dataset: Images and labels.
        encoder: The first replicate's encoder.

    Returns:
        search: What was chosen for baseline, fine-tuning and probe, and all trials.
        metrics: Log-loss and accuracy of what was chosen, on held-out images.
    """
    from pipelines.kubeflow import runtime

    runtime.run("search", settings, [dataset, encoder], search, seed, metrics=metrics)


def probe(
    settings: str,
    seed: int,
    dataset: dsl.Input[dsl.Dataset],
    encoder: dsl.Input[dsl.Model],
    search: dsl.Input[dsl.Artifact],
    probe: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    pictures: dsl.Output[dsl.HTML],
) -> None:
    """Measure what the frozen encoder knows, with few labels.

    Args:
        settings: Parameters and code version.
        seed: Of the replicate.
        dataset: Images and labels.
        encoder: The replicate's encoder.
        search: What was chosen for the probe.

    Returns:
        probe: A linear classifier on the frozen encoder, and its predictions, also with fewer labels.
        metrics: Accuracies of the linear probe and of nearest neighbours, on validation images.
        pictures: Nearest neighbours.
    """
    from pipelines.kubeflow import runtime

    runtime.run("probe", settings, [dataset, encoder, search], probe, seed, metrics=metrics, page=pictures)


def baseline(
    settings: str,
    seed: int,
    dataset: dsl.Input[dsl.Dataset],
    search: dsl.Input[dsl.Artifact],
    baseline: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the rival: the same network on the same labels from random weights.

    Args:
        settings: Parameters and code version.
        seed: Of the replicate.
        dataset: Images and labels.
        search: What was chosen for the baseline.

    Returns:
        baseline: The classifier, its predictions, and curves.
        metrics: Accuracy and log-loss on validation images.
    """
    from pipelines.kubeflow import runtime

    runtime.run("baseline", settings, [dataset, search], baseline, seed, metrics=metrics)


def finetune(
    settings: str,
    seed: int,
    dataset: dsl.Input[dsl.Dataset],
    encoder: dsl.Input[dsl.Model],
    search: dsl.Input[dsl.Artifact],
    finetune: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the pretrained network on the labels.

    Args:
        settings: Parameters and code version.
        seed: Of the replicate.
        dataset: Images and labels.
        encoder: The replicate's encoder.
        search: What was chosen for fine-tuning.

    Returns:
        finetune: The classifier, its predictions, and curves.
        metrics: Accuracy and log-loss on validation images.
    """
    from pipelines.kubeflow import runtime

    runtime.run("finetune", settings, [dataset, encoder, search], finetune, seed, metrics=metrics)


def champion(settings: str) -> str:
    """Ask the registry which model is in use.

    Args:
        settings: Parameters and code version.

    Returns:
        Output: What the registry said, as JSON, or why it could not be asked.
    """
    from pipelines.kubeflow import runtime

    return runtime.champion(settings)


def evaluate(
    settings: str,
    champion: str,
    dataset: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    search: dsl.Input[dsl.Artifact],
    probe: dsl.Input[dsl.Model],
    baseline: dsl.Input[dsl.Model],
    finetune: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    text: dsl.Output[dsl.Markdown],
) -> str:
    """Judge the probe and the fine-tuned model against the baseline.

    Args:
        settings: Parameters and code version.
        champion: What the registry said of the model in use, as JSON.
        dataset: Images and labels.
        validation: What the checks of the data found.
        search: All trials of both sides.
        probe: All replicates of the linear probe.
        baseline: All replicates of the supervised baseline.
        finetune: All replicates of the fine-tuned model.

    Returns:
        evaluation: The verdict (blessing.json), numbers, pictures and the report.
        metrics: Accuracies and gain on validation images, and the verdict as 0 or 1.
        confusion: Confusion matrix of the exported model on the test images, if they were opened.
        report: The page for a reviewer: verdict, reasons, numbers and pictures.
        text: The same as Markdown, without the pictures.
        Output: The verdict, blessed or refused.
    """
    from pipelines.kubeflow import runtime

    inputs = [dataset, validation, search, probe, baseline, finetune]
    blessing = runtime.evaluate(
        settings, inputs, champion, evaluation, metrics=metrics, confusion=confusion, page=report, text=text
    )
    return "blessed" if blessing.blessed else "refused"


def register(
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    probe: dsl.Input[dsl.Model],
    finetune: dsl.Input[dsl.Model],
    registration: dsl.Output[dsl.Artifact],
    outcome: dsl.Output[dsl.Markdown],
) -> None:
    """Check that the winner answers from a fresh process, and put it up for review in the registry.

    Args:
        settings: Parameters and code version.
        dataset: Images and labels.
        evaluation: The verdict.
        probe: All replicates of the linear probe.
        finetune: All replicates of the fine-tuned model.

    Returns:
        registration: The version and its alias, or why there is none.
        outcome: What the run found, and what was registered.
    """
    from pipelines.kubeflow import runtime

    runtime.run("register", settings, [dataset, evaluation, probe, finetune], registration, page=outcome)


def refuse(evaluation: dsl.Input[dsl.Artifact], outcome: dsl.Output[dsl.Markdown]) -> None:
    """Say why nothing is registered. The run ends well: a refusal is a result.

    Args:
        evaluation: The verdict.

    Returns:
        outcome: What the run found, and which checks of the gate did not pass.
    """
    from pipelines.kubeflow import runtime

    runtime.refuse(evaluation, outcome)


def record(status: dsl.PipelineTaskFinalStatus, overrides: list[str]) -> None:
    """Keep in MLflow how the run ended, whatever became of its steps.

    Args:
        status: How the steps ended.
        overrides: The options of the run.
    """
    from pipelines.kubeflow import runtime

    runtime.record(status, overrides)
