"""What each feature contributes to a prediction, for clients that ask for it.

The file that computes the contributions is loaded when the first client asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from app.answers import SIGNED_BYTES, Answers, OutputTensor, unpredictable
from app.contract import Bundle, Explanation, Layout, Manifest
from app.limits import RowLimits, Sizes
from app.predictor import CONTRIBUTIONS, Explainer
from app.schema import EXPLAIN, Row, Rows, object_of

BASE = "base"
_ASKED, *_REQUESTED = (f'"{name}"'.encode() for name in (EXPLAIN, CONTRIBUTIONS, BASE))
MOST_WORK = 512 * 2**20
"""Rows of a request times the bytes of the file, with which the time grows: a second at most."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Explained:
    """The explanations of rows."""

    base: Floats
    """Of shape (rows,): the mean score over the training rows."""
    contributions: Floats
    """Of shape (rows, features): what each feature adds to it. The sum of all is the model's score."""
    classes: list[str] | None
    """The class of each row whose score is explained; None for a regression."""


class Explanations:
    """The explanations of the model in a bundle that has them; `count` is called with the number of explained rows.

    Attributes:
        tensors: the outputs of the inference protocol.
        limits: how many rows a request may have, whose answers and explanations are sent.
    """

    def __init__(
        self, bundle: Bundle, answers: Answers[Any, Any], count: Callable[[int], None], max_bytes: int
    ) -> None:
        manifest = bundle.manifest
        assert manifest.explanation is not None  # noqa: S101  for mypy: the caller looked
        assert bundle.explanation is not None  # noqa: S101  as above
        self._about = manifest.explanation
        self._manifest = manifest
        self._file = bundle.explanation
        self._explainer: Explainer | None = None
        self._lock = Lock()
        self._count = count
        self._names = [each.name for each in manifest.features]
        self._classes = np.array(manifest.classes, dtype=object)
        self._base = np.array(self._about.base)
        self.tensors = (OutputTensor(CONTRIBUTIONS, "FP64", len(self._names)), OutputTensor(BASE, "FP64"))
        sizes = _sizes(answers.sizes, manifest, self._about)
        self.limits = RowLimits(len(self._names), sizes, max_bytes, most=max(1, MOST_WORK // len(self._file)))

    @staticmethod
    def are_asked_for(body: bytes | bytearray) -> bool:
        """Whether a request may ask for an explanation, by the key or for a tensor by its name."""
        return _ASKED in body or any(each in body for each in _REQUESTED)

    def explain_row(self, row: Row, label: int | None) -> dict[str, Any]:
        """Explain the prediction of a row, whose class is given, in JSON.

        Raises:
            RequestError: 422, a contribution is not finite.
        """
        rows = Rows.of(row)
        # numpy would take as long as the file: after a run of onnxruntime its code is not in the processor's caches.
        (found,) = self._load().explain(rows.numbers, rows.categories).tolist()
        score = label if len(self._about.base) > 1 else 0
        contributions = [each[score] for each in found]
        if not all(map(isfinite, contributions)):
            raise unpredictable(0)
        self._count(1)
        name = (
            self._about.positive if label is None or self._about.positive else self._manifest.classes[label]
        )
        return self._as_object(self._about.base[score or 0], name, contributions)

    def explain(self, rows: Rows, labels: Indices | None) -> Explained:
        """Explain the predictions of rows, whose classes are given.

        Raises:
            RequestError: 422, a contribution is not finite.
        """
        found = self._load().explain(rows.numbers, rows.categories)
        if len(self._base) == 1:
            contributions, base = found[:, :, 0], np.repeat(self._base, len(rows))
        else:
            contributions, base = found[np.arange(len(rows)), :, labels], self._base[labels]
        finite = np.isfinite(contributions)
        if not finite.all():
            raise unpredictable(int(finite.all(axis=1).argmin()))
        self._count(len(rows))
        return Explained(base, contributions, self._explained_classes(labels, len(rows)))

    def each(self, explained: Explained) -> Iterator[dict[str, Any]]:
        """The explanation of each row in JSON."""
        classes = explained.classes or itertools.repeat(None)
        rows = zip(explained.base.tolist(), classes, explained.contributions.tolist(), strict=False)
        return itertools.starmap(self._as_object, rows)

    def _as_object(self, base: float, name: str | None, contributions: list[float]) -> dict[str, Any]:
        return {
            "base": base,
            "unit": self._about.unit,
            **({} if name is None else {"class": name}),
            "contributions": dict(zip(self._names, contributions, strict=True)),
        }

    def as_columns(self, explained: Explained) -> dict[str, Any]:
        """The explanations in the answer to a request of columns."""
        by_feature = np.ascontiguousarray(explained.contributions.T)
        return {
            "base": explained.base,
            "unit": self._about.unit,
            **({} if explained.classes is None else {"classes": explained.classes}),
            "contributions": dict(zip(self._names, by_feature, strict=True)),
        }

    def tensor(self, name: str, explained: Explained) -> Floats:
        return explained.base if name == BASE else explained.contributions

    def object_field(self) -> Any:
        """The type of `each`."""
        return self._fields("Explanation", float, "class", self._class)

    def column_field(self) -> Any:
        """The type of `as_columns`."""
        lists: Any = list[float]
        return self._fields("ExplanationColumns", lists, "classes", list[self._class])  # type: ignore[name-defined]

    def _fields(self, name: str, numbers: Any, classes: str, of_classes: Any) -> Any:
        base = Field(description="The mean score over the training rows.")
        about = "What each feature adds to the base. The sum is the model's score in this unit."
        contributions = object_of(f"{name}Contributions", dict.fromkeys(self._names, numbers))
        fields = {
            "base": Annotated[numbers, base],
            "unit": Literal[self._about.unit],
            "contributions": Annotated[contributions, Field(description=about)],
        }
        return object_of(name, fields | ({classes: of_classes} if self._manifest.classes else {}))

    @property
    def _class(self) -> Any:
        positive = self._about.positive
        about = "The class whose score is explained."
        return Annotated[
            Literal[self._manifest.classes if positive is None else positive], Field(description=about)
        ]

    def _explained_classes(self, labels: Indices | None, rows: int) -> list[str] | None:
        if self._about.positive is not None:
            return [self._about.positive] * rows
        return None if labels is None else self._classes[labels].tolist()

    def _load(self) -> Explainer:
        with self._lock:
            if self._explainer is None:
                explainer = Explainer(self._file, Layout.of(self._manifest.features))
                explainer.check(len(self._names), len(self._base))
                self._explainer = explainer
            return self._explainer


def _sizes(answer: Sizes, manifest: Manifest, about: Explanation) -> Sizes:
    """What the answer to a row and its explanation take at most."""
    features = len(manifest.features)
    names = sum(len(orjson.dumps(each.name)) + 1 for each in manifest.features)
    classes = max((len(orjson.dumps(each)) + 1 for each in manifest.classes), default=0)
    numbers = (features + 1) * SIGNED_BYTES
    frame = len('"explanation":{"base":,"unit":,"class":,"contributions":{}},') + len(
        orjson.dumps(about.unit)
    )
    return Sizes(
        numbers=answer.numbers + features * len(about.base),
        instance=answer.instance + frame + classes + names + numbers,
        columns=answer.columns + classes + numbers,
        tensors={
            **answer.tensors,
            (CONTRIBUTIONS, False): features * SIGNED_BYTES,
            (CONTRIBUTIONS, True): 8 * features,
            (BASE, False): SIGNED_BYTES,
            (BASE, True): 8,
        },
    )
