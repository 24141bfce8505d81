"""Steps as Kubeflow components that do nothing; without postponed annotations, which KFP can't read."""

from kfp import dsl

from components.shared.steps import Step

TABLE = {
    "ingest": Step(name="ingest", title="Ingest", out="dataset"),
    "evaluate": Step(name="evaluate", title="Evaluate", inputs=("dataset",), out="evaluation"),
    "register": Step(name="register", title="Register", inputs=("evaluation",), out="registration"),
}


def ingest(settings: str, dataset: dsl.Output[dsl.Dataset]) -> None:
    """Read."""
    from pathlib import Path

    Path(dataset.path).mkdir(parents=True)


def evaluate(settings: str, dataset: dsl.Input[dsl.Dataset], evaluation: dsl.Output[dsl.Artifact]) -> str:
    """Judge."""
    from pathlib import Path

    Path(evaluation.path).mkdir(parents=True)
    return "refused"


def register(settings: str, evaluation: dsl.Input[dsl.Artifact], registration: dsl.Output[dsl.Artifact]) -> None:
    """Register."""


def refuse(evaluation: dsl.Input[dsl.Artifact]) -> None:
    """Refuse."""
