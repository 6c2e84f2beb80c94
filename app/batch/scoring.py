"""Scores record batches: the features' columns in, a table of answers out, row for row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.answers import INTERVAL, answers_of, unpredictable
from app.batch.columns import Codes, Columns, Faults
from app.batch.errors import BatchError, PartError
from app.contract import Bundle
from app.limits import RowLimits
from app.predictor import LABEL, PROBABILITIES, VALUE, load
from app.schema import Rows, Schema

PROBABILITY = "probability"
"""The probability of the answered class."""
ERROR = "error"
MODEL = "model"
VERSION = "model_version"

_CHOICES = {
    "classification": (LABEL, PROBABILITY, PROBABILITIES),
    "regression": (VALUE, INTERVAL),
}
_DEFAULTS = {"classification": (LABEL, PROBABILITIES), "regression": (VALUE, INTERVAL)}
_UNPREDICTABLE = unpredictable(0).message.partition(": ")[2]

OnError = Literal["null", "fail"]


@dataclass(frozen=True)
class Options:
    """What a result has beside the answers, and what a refused row does."""

    answers: tuple[str, ...] = ()
    """Of the service's answers; empty for the usual ones."""
    keep: tuple[str, ...] = ()
    """Columns of the input that are in the result too, before the others."""
    on_error: OnError = "null"


class Scorer:
    """A model, for parts in several threads.

    Raises:
        BundleError: onnxruntime cannot run the model, or it does not fit its manifest.
        BatchError: the options do not fit the model.
    """

    def __init__(self, bundle: Bundle, options: Options) -> None:
        self.manifest = manifest = bundle.manifest
        self.options = options
        self.answers = answers_of(manifest)
        self.predictor = load(bundle)
        self.answers.check(self.predictor)
        # The sizes of requests do not matter here.
        self.schema = Schema(manifest, RowLimits(1, self.answers.sizes, 1))
        choices = _CHOICES[manifest.task]
        self.chosen = options.answers or _DEFAULTS[manifest.task]
        unknown = [each for each in self.chosen if each not in choices]
        if unknown:
            raise BatchError(
                f"--answers {','.join(unknown)}: the model is a {manifest.task}, which has {', '.join(choices)}"
            )
        self.names = list(self._names())
        taken = [each for each in options.keep if each in (*self.names, ERROR, MODEL, VERSION)]
        if taken:
            raise BatchError(f"--keep {','.join(taken)}: the results have a column of this name; rename it")

    def part(self, schema: Any) -> PartScorer:
        """What scores a part with these columns.

        Raises:
            PartError: a column is missing or has a type that its feature cannot have.
        """
        return PartScorer(self, schema)

    def _names(self) -> Iterator[str]:
        for each in self.chosen:
            if each == PROBABILITIES:
                yield from (f"{PROBABILITY}_{name}" for name in self.manifest.classes)
            elif each == INTERVAL:
                yield from (f"{INTERVAL}_low", f"{INTERVAL}_high")
            else:
                yield each

    def predict(self, rows: Rows) -> tuple[list[NDArray[Any]], NDArray[np.bool_] | None]:
        """The answers to valid rows as columns, labels as indices; and which rows have no finite answer, if any."""
        many = self.answers.converted(self.predictor.predict(rows.numbers, rows.categories))
        endless = None
        for each in self.answers.tensors:
            if each.datatype == "FP64":
                values = self.answers.tensor(each.name, many)
                # The sum is NaN or infinite if any value is.
                if not np.isfinite(values.sum()):
                    found = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
                    endless = found if endless is None else endless | found
        return list(self._columns(many)), endless

    def _columns(self, many: Any) -> Iterator[NDArray[Any]]:
        labels = self.answers.labels(many)
        for each in self.chosen:
            if each == LABEL:
                assert labels is not None  # noqa: S101  for mypy
                yield labels
            elif each == PROBABILITY:
                probabilities = self.answers.tensor(PROBABILITIES, many)
                yield probabilities[np.arange(len(probabilities)), labels]
            else:
                values = self.answers.tensor(each, many)
                yield from values.reshape(len(values), -1).T


class PartScorer:
    """Scores the batches of one part, and counts the refused rows.

    Attributes:
        reads: the columns that it needs.
        schema: of the results.
        refused: how many rows have which fault.
    """

    def __init__(self, scorer: Scorer, schema: Any) -> None:
        self._scorer = scorer
        self._options = scorer.options
        self.faults = Faults(scorer.manifest, scorer.schema)
        self._columns = Columns(scorer.manifest, self.faults)
        self._columns.check(schema)
        keep = self._options.keep
        for each in keep:
            found = list(schema.names).count(each)
            if found != 1:
                raise PartError(
                    f"it has {found or 'no'} column{'s' * (found > 1)} {each}, which --keep names"
                )
        features = [each.name for each in scorer.manifest.features if each.name in schema.names]
        self.reads: list[str] = [*dict.fromkeys([*features, *keep])]
        self.refused: Counter[str] = Counter()
        self._rows = 0
        classes = scorer.manifest.classes
        self._classes = pa.array(classes, pa.string())
        index: Any = pa.int8() if len(classes) < 128 else pa.int32()
        self._label = pa.dictionary(index, pa.string())
        constant = pa.dictionary(pa.int8(), pa.string())
        self._own = scorer.names
        own = [(name, self._label if name == LABEL else pa.float64()) for name in self._own]
        self.schema = pa.schema(
            [
                *(schema.field(each).remove_metadata() for each in keep),
                *own,
                (ERROR, pa.string()),
                (MODEL, constant),
                (VERSION, constant),
            ]
        )

    def score(self, batch: Any) -> Any:
        """The results of a record batch.

        Raises:
            PartError: a row is refused, and the options say that its part fails.
        """
        count = batch.num_rows
        rows, codes = self._columns.rows(batch)
        answers = self._answers(rows, codes)
        bad = codes != 0
        if bad.any():
            self._count(codes, bad)
            errors = pa.array(self.faults.texts, pa.string()).take(pa.array(codes))
        else:
            bad, errors = None, pa.nulls(count, pa.string())
        self._rows += count
        kept = [batch.column(batch.schema.get_field_index(each)) for each in self._options.keep]
        own = [self._array(values, bad) for values in answers]
        manifest = self._scorer.manifest
        constants = [_constant(each, count) for each in (manifest.name, manifest.version)]
        return pa.record_batch([*kept, *own, errors, *constants], schema=self.schema)

    def _answers(self, rows: Rows, codes: Codes) -> list[NDArray[Any]]:
        """The columns of all rows; those that are refused, or turn out to have no finite answer, have any values."""
        if not codes.any() and len(rows):
            answers, endless = self._scorer.predict(rows)
            if endless is not None:
                codes[endless] = self.faults.code(_UNPREDICTABLE)
            return answers
        valid = np.flatnonzero(codes == 0)
        whole = [np.zeros(len(rows), dtype=np.int64 if each == LABEL else np.float64) for each in self._own]
        if len(valid):
            categories = None if rows.categories is None else rows.categories[valid]
            answers, endless = self._scorer.predict(Rows(rows.numbers[valid], categories))
            if endless is not None:
                codes[valid[endless]] = self.faults.code(_UNPREDICTABLE)
            for column, values in zip(whole, answers, strict=True):
                column[valid] = values
        return whole

    def _count(self, codes: Codes, bad: NDArray[np.bool_]) -> None:
        if self._options.on_error == "fail":
            first = int(bad.argmax())
            raise PartError(f"row {self._rows + first}: {self.faults.texts[codes[first]]}")
        for code, rows in zip(*np.unique(codes[bad], return_counts=True), strict=True):
            text = self.faults.texts[code]
            assert text is not None  # noqa: S101  only code 0 has none
            self.refused[text] += int(rows)

    def _array(self, values: NDArray[Any], bad: NDArray[np.bool_] | None) -> Any:
        if values.dtype.kind == "f":
            return pa.array(values, mask=bad)
        indices = pa.array(values.astype(self._label.index_type.to_pandas_dtype()), mask=bad)
        return pa.DictionaryArray.from_arrays(indices, self._classes)


def _constant(text: str, count: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int8)), pa.array([text]))
