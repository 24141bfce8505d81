"""A model, its card and what it takes and gives, as one commit to a repository of the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.shared.digests import file_digest
from components.shared.errors import UserError, first_line
from components.shared.evaluation.wording import percent, span
from components.shared.params.schema import load_params
from components.shared.registry.uris import ModelUri, version_uri
from components.shared.registry.versions import (
    CHAMPION,
    DECIDED_AGAINST,
    STATUS,
    Version,
    all_tags,
    find_champion,
    registry_client,
    tagged_numbers,
)
from components.shared.repository import in_repository
from components.shared.templates import render
from pipelines.inference.export import describe
from pipelines.inference.model import description_of, located

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

_TEMPLATE = Path(__file__).parent / "templates" / "hub_card.md.j2"
FILE = Path("model.keras")
_AXES = ("N", "height", "width", "channels")
# of the registry's card, what only the registry's own readers can follow
_AT_HOME = re.compile(r"^### (?:Call|Runs)\n.*?(?=^### |\Z)", re.DOTALL | re.MULTILINE)
_REFUSED = {
    401: "the token is not accepted (401); `hf auth login` again, or set HF_TOKEN to a valid one",
    403: "the token may not write there (403); use one with write permission for this owner",
    404: "there is no such owner or repository (404); check the address",
}


@dataclass(frozen=True)
class _Known:
    """What is known of a model besides its file: its standing in a word, what must be said first, card and tags."""

    standing: str
    statements: list[str]
    card: str
    tags: Mapping[str, str]


def push_model(address: str, repository: str, public: bool, license: str | None, dry_run: bool) -> None:
    """Push a model with its card, in one commit, and print where it is.

    Args:
        address: see `located`.
        repository: `hf://<owner>/<name>`; made where it is not there.
        public: what the repository is, or must be made.
        license: the Hub's id of one, for the card; None names none.
        dry_run: print what would be pushed, and send nothing.

    Raises:
        UserError: no such model, a reviewer decided against it, the repository is private where it shall be public
            or the other way round, there is no token, or the Hub can't be reached or refuses.
    """
    found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)", repository)
    if found is None:
        raise UserError(
            f"{repository}: must be hf://<owner>/<name>, a repository of models on the Hugging Face Hub"
        )
    if find_spec("huggingface_hub") is None:
        raise UserError(f"{repository}: huggingface_hub is not installed; `uv pip install '.[hub]'` installs it")
    from huggingface_hub import get_token

    token = get_token()
    if token is None and not dry_run:
        raise UserError(f"{repository}: no token; `hf auth login`, or set HF_TOKEN to one that may write there")
    with located(address) as source:
        model = source.load()
        file = source.keras_file
        if not zipfile.is_zipfile(file):
            raise UserError(f"{model.name}: holds no .keras file; `contrastive export --format keras` writes one")
        digest = file_digest(file)
        known = _known(source.version, model.name, digest)
        content = {str(FILE): file.read_bytes()}
        with zipfile.ZipFile(file) as archive:
            content |= {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    sides = model.network.input_shape[1:3]
    description = describe(model, "keras", None if None in sides else sides, model.network.inputs[0].dtype)
    content[description_of(FILE).name] = (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode()
    body = render(
        _TEMPLATE,
        **description,
        title=found[1].split("/")[1],
        statements=known.statements,
        card=known.card,
        digest=digest,
        repository=found[1],
        # of any size where a side is None
        shape=", ".join(str(side or name) for side, name in zip(description["takes"]["shape"], _AXES, strict=True)),
    )
    front = _front_matter(description["gives"], known.tags, license, found[1].split("/")[1])
    content["README.md"] = f"---\n{front.to_yaml()}\n---\n\n{body.strip()}\n".encode()
    what = f"{model.name}, {known.standing}"
    if dry_run:
        print(content["README.md"].decode())
        for name, data in sorted(content.items()):
            print(f"{name}: {len(data):,} bytes")
        print(f"{repository}: nothing was sent; {what}, would be {'public' if public else 'private'}")
        return
    _commit(found[1], content, what, public, token)


def _known(version: ModelUri | None, name: str, digest: str) -> _Known:
    """What the registry says of a model.

    Args:
        version: of the registry; None where it is not from there.
        name: of the model, for messages.
        digest: SHA-256 of its file.
    """
    if version is None or version.name is None or version.version is None:
        why = "Not from a registry: whether this model passed the gate or a review is not known."
        return _Known("not registered", [why], "", {})
    with registry_client(version.name) as client:
        found = client.get_model_version(version.name, version.version)
    tags, aliases = dict(found.tags), sorted({*found.aliases} - {CHAMPION})
    if tags.get("artifact_digest", digest) != digest:
        raise UserError(f"{name}: its file is not the one that was registered ({digest[:12]}…); register it anew")
    card = _AT_HOME.sub("", found.description or "").strip()
    verdict = (
        [] if tags.get("verdict") == "blessed" else ["No verdict of the gate is known that blessed this model."]
    )
    champion = find_champion(_counting(version.name))
    if champion.artifact_digest == digest or (champion.model, champion.version) == (version.name, version.version):
        return _Known(CHAMPION, verdict, card, all_tags(tags))
    uri = version_uri(version.name, version.version)
    standing = Version(version.name, version.version, tuple(aliases), uri, tags.get(STATUS)).standing
    if tags.get(STATUS) in DECIDED_AGAINST:
        raise UserError(f"{name}: was {tags[STATUS]} by its reviewer; choose another version to push")
    return _Known(
        f"no champion ({standing})",
        [f"Not the champion: {name} is {standing} in its registry.", *verdict],
        card,
        all_tags(tags),
    )


def _counting(name: str) -> str:
    """The registered model whose alias `champion` counts for versions of this one, as params.yaml here says."""
    try:
        registry = load_params(in_repository("params.yaml"), "register").registry
    except UserError:
        return name
    return registry.champion_model if name == registry.model_name else name


def _front_matter(gives: str, tags: Mapping[str, str], license: str | None, name: str) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    more: dict[str, Any] = {}
    for accuracy in tagged_numbers(tags, "test_accuracy")[:1]:
        interval, confidence = (tagged_numbers(tags, key) for key in ("test_accuracy_interval", "confidence"))
        within = ""
        if len(interval) == 2 and confidence:
            low, high = interval
            within = f", {percent(confidence[0], '.3g')} interval {span((low, high))} %"
        dataset = tags.get("dataset", "unknown")
        result = EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=accuracy,
            metric_name=f"test accuracy{within}",
        )
        more = {"metrics": ["accuracy"], "model_name": name, "eval_results": [result]}
    classifies = gives == "class probabilities"
    return ModelCardData(
        library_name="keras",
        pipeline_tag="image-classification" if classifies else "image-feature-extraction",
        license=license,
        tags=["contrastive-learning", *(tags[key] for key in ("method", "encoder") if key in tags)],
        **more,
    )


def _commit(repository: str, content: Mapping[str, bytes], what: str, public: bool, token: str | None) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi(token=token, library_name="contrastive-pipeline")
    left = ""
    try:
        if not hub.repo_exists(repository):
            hub.create_repo(repository, private=not public)
            left = " to the new repository, which is there, empty"
        private = hub.model_info(repository).private
        if private == public:
            is_now, told = ("private", "with --public") if private else ("public", "without --public")
            raise UserError(
                f"{hub.endpoint}/{repository}: is {is_now}, and the push is {told}; nothing was committed: change "
                "that in its settings, or in the command"
            )
        done = hub.create_commit(
            repository,
            [CommitOperationAdd(name, data) for name, data in content.items()],
            commit_message=f"Push {what}",
        )
    except UserError:
        raise
    except Exception as error:  # the client's, the Hub's and its storage's each have their own
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = _REFUSED.get(status or 0) or f"{first_line(error)}; check the network and HF_ENDPOINT, and push again"
        raise UserError(f"{hub.endpoint}/{repository}: nothing was committed{left}: {why}") from None
    print(f"{hub.endpoint}/{repository}: {what}, {'private' if private else 'public'}; commit {done.oid[:12]}")
