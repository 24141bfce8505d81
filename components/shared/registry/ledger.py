"""The ledger of looks at test images, kept in the registry: who looks is counted, under whatever model name.

Each look is a run of an experiment of its own, with all that counts in its tags, so that no artifact store is
needed. MLflow has no counter that several can use at once. So a claim is written first and counted afterwards,
deleted ones too: of two that look at the same moment each counts at least its own place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from components.shared.errors import UserError, redacted
from components.shared.evaluation.looks import Look
from components.shared.tracking.client import connect, experiment_id, why_not

EXPERIMENT = "contrastive-looks"
KEY, IMAGES, SKETCH, OPTIONS, PLACE = "look.key", "look.images", "look.sketch", "look.options", "look.place"
# test sets that share a larger fraction of the smaller one's images count as the same
SHARED = 0.1
# A sketch keeps the smallest hashes, each of 6 bytes; a tag holds 600 of them in Base64. Up to as many images it
# holds all, and what two sets share is exact.
SKETCH_SIZE, _PER_TAG, _BYTES = 2400, 600, 6
# how many standard errors a larger set's share is rounded up by
_MARGIN = 3.0


@dataclass(frozen=True)
class Sketch:
    """A set of images by the smallest of their hashes.

    Attributes:
        size: number of different images.
        hashes: the smallest ones, uint64, ascending, at most `SKETCH_SIZE`.
    """

    size: int
    hashes: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray) -> Sketch:
        """Of content digests, uint64, shape (N,), in any order and with copies."""
        distinct = np.unique(images)
        # hashed once more: a split may have chosen its images by their digest
        hashed = sorted(
            int.from_bytes(hashlib.blake2b(digest.tobytes(), digest_size=_BYTES).digest(), "big")
            for digest in distinct.astype("<u8")
        )
        return cls(len(distinct), np.array(hashed[:SKETCH_SIZE], dtype=np.uint64))

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> Sketch:
        """From a claim's tags.

        Raises:
            ValueError: somebody changed them.
        """
        size, raw, part = int(tags[IMAGES]), b"", 0
        while (name := f"{SKETCH}.{part}") in tags:
            raw += base64.b64decode(tags[name], validate=True)
            part += 1
        rows = np.frombuffer(raw, np.uint8).reshape(-1, _BYTES).astype(np.uint64)
        hashes = (rows << np.arange(8 * (_BYTES - 1), -1, -8, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
        if len(hashes) != min(size, SKETCH_SIZE) or not size:
            raise ValueError(f"{len(hashes)} hashes of {size} images")
        return cls(size, hashes)

    def tags(self) -> dict[str, str]:
        """As a claim's tags."""
        found = {IMAGES: str(self.size)}
        for part, start in enumerate(range(0, len(self.hashes), _PER_TAG)):
            some = self.hashes[start : start + _PER_TAG]
            raw = b"".join(int(value).to_bytes(_BYTES, "big") for value in some)
            found[f"{SKETCH}.{part}"] = base64.b64encode(raw).decode()
        return found

    def shares(self, other: Sketch) -> bool:
        """Whether the two share `SHARED` or more of the smaller one's images; where it can't tell, they do."""
        cut = [sketch.hashes[-1] for sketch in (self, other) if sketch.size > len(sketch.hashes)]
        ours, theirs = self.hashes, other.hashes
        if cut:
            # below the smaller cut both are known whole
            ours, theirs = ours[ours <= min(cut)], theirs[theirs <= min(cut)]
        common = len(np.intersect1d(ours, theirs, assume_unique=True))
        expected = SHARED * min(len(ours), len(theirs))
        return common >= (expected - _MARGIN * math.sqrt(expected) if cut else expected)


class RegistryLedger:
    """The ledger at the server that MLflow is pointed at. All raise UserError where that does not answer."""

    def expected(self, key: str, images: np.ndarray) -> int:
        """The place that a look of this key would have, without claiming it."""
        claims = self._claims(Sketch.of(images))
        place = _recorded_place(claims, key)
        return place if place is not None else len({_key(claim) for claim in claims} | {key})

    def claim(self, key: str, images: np.ndarray, options: Mapping[str, Any]) -> Look:
        """Write the look down, and count; one that was claimed before keeps its place.

        Args:
            key: of `look_key`.
            images: content digests of the test images, uint64, shape (N,).
            options: of the gate, plain values.
        """
        sketch, said = Sketch.of(images), json.dumps(options, sort_keys=True)
        claims = self._claims(sketch)
        before = {claim.data.tags.get(OPTIONS) for claim in claims if _key(claim) == key}
        place = _recorded_place(claims, key)
        if place is None or said not in before:
            made = self._write({KEY: key, OPTIONS: said, **sketch.tags()})
            if place is None:
                place = len({_key(claim) for claim in self._claims(sketch)} | {key})
            self._note(made, place)
        return Look(place, bool(before - {said}))

    def _claims(self, sketch: Sketch) -> list[Run]:
        """All claims at test images such as these, deleted ones too; also those that can't be read."""
        return [claim for claim in _asking(_all_claims) if _about(claim, sketch)]

    def _write(self, tags: Mapping[str, str]) -> str:
        def write() -> str:
            run = mlflow.MlflowClient().create_run(
                experiment_id(EXPERIMENT), tags=dict(tags), run_name=tags[KEY][:12]
            )
            return str(run.info.run_id)

        return str(_asking(write))

    def _note(self, run_id: str, place: int) -> None:
        def note() -> None:
            client = mlflow.MlflowClient()
            client.set_tag(run_id, PLACE, str(place))
            # `set_terminated` would print an address
            client.update_run(run_id, "FINISHED")

        _asking(note)


def _asking(what: Any) -> Any:
    connect()
    try:
        return what()
    except (MlflowException, OSError) as error:
        where = redacted(mlflow.get_tracking_uri())
        raise UserError(f"MLflow at {where}: experiment {EXPERIMENT}: {why_not(error)}") from None


def _all_claims() -> list[Run]:
    client, claims, token = mlflow.MlflowClient(), [], None
    experiment = experiment_id(EXPERIMENT)
    while True:
        page = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token)
        claims += page
        token = page.token
        if not token:
            return claims


def _about(claim: Run, sketch: Sketch) -> bool:
    try:
        return Sketch.read(claim.data.tags).shares(sketch)
    except (ValueError, KeyError):
        # somebody changed it; it was a look at something
        return True


def _key(claim: Run) -> str:
    return str(claim.data.tags.get(KEY, claim.info.run_id))


def _recorded_place(claims: Sequence[Run], key: str) -> int | None:
    """The place that was counted for a key, None where nobody has; of several the first one was counted by."""
    places = []
    for claim in claims:
        with suppress(ValueError):
            if _key(claim) == key:
                places.append(int(claim.data.tags.get(PLACE, "")))
    return min((place for place in places if place > 0), default=None)
