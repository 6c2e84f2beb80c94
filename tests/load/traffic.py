"""Builds the requests of a load test and judges the answers; it knows the service's API and no HTTP client.

Rows are drawn and written as JSON once, and requests are put together from that pool: a generator that is
busy drawing numbers would measure itself instead of the service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal
from urllib.parse import quote

import orjson

from app.contract import Manifest
from tests.load.rows import Row, RowSource

CARD = "/model"
"""Where users learn what to send."""

POOL_CELLS = 20_000
POOL_ROWS = (50, 1000)
"""The pool has as many rows as make POOL_CELLS values, but within these bounds."""
BATCH_SIZES = (2, 5, 10, 20, 50, 100)
COLUMN_SIZES = (50, 100, 200, 500)
MAX_BATCH_BYTES = 256 * 1024
"""Batches stay well under the service's default limit of 1 MiB, however many features a row has."""
TOLERANCE = 1e-6

JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """A POST and what must come back.

    Attributes:
        name: the line of the statistics that it counts in.
        about: which kind of request it is, within its name.
        shape: how the answer is written.
        rows: how many predictions the answer must have.
        status: the status that is right; anything else is a failure.
        field: the feature that a refusal must name, if any.
    """

    name: str
    path: str
    body: str
    about: str
    shape: Literal["instance", "instances", "columns", "tensors", "error"]
    rows: int = 0
    status: int = 200
    field: str | None = None
    content_type: str = JSON


class _Classes:
    """What the answers of a classification must be; predictions are as those of `/predict`."""

    def __init__(self, manifest: Manifest) -> None:
        self._classes = manifest.classes
        self._decision = manifest.decision

    def of_tensors(self, outputs: dict[str, list[Any]]) -> list[dict[str, Any]]:
        flat, width = outputs["probabilities"], len(self._classes)
        rows = [flat[start : start + width] for start in range(0, len(flat), width)]
        return self._zipped(outputs["label"], rows)

    def of_columns(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        columns = [answer["probabilities"][name] for name in self._classes]
        return self._zipped(answer["labels"], zip(*columns, strict=True))

    def wrong(self, prediction: dict[str, Any]) -> str | None:
        label, probabilities = prediction["label"], prediction["probabilities"]
        row = [probabilities[name] for name in self._classes]
        # Written so that NaN and null are wrong as well.
        if not (abs(sum(row) - 1) <= TOLERANCE and min(row) >= 0):
            return "probabilities that do not add up to 1"
        merits = self._merits(row)
        near = TOLERANCE * max(1.0, *map(abs, merits))
        if not merits[self._classes.index(label)] >= max(merits) - near:
            return "a label that does not follow from the probabilities"
        return None

    def _merits(self, row: list[float]) -> list[float]:
        """Of each class: the model answers the one with the highest."""
        decision = self._decision
        if decision is None:
            return row
        if decision.cost is not None:
            answers = zip(*decision.cost, strict=True)
            return [-sum(p * cost for p, cost in zip(row, costs, strict=True)) for costs in answers]
        threshold = 0.5 if decision.threshold is None else decision.threshold
        pairs = zip(self._classes, row, strict=True)
        return [p - threshold if name == decision.positive else 0.0 for name, p in pairs]

    def _zipped(self, labels: list[str], rows: Iterable[Iterable[float]]) -> list[dict[str, Any]]:
        return [
            {"label": label, "probabilities": dict(zip(self._classes, row, strict=True))}
            for label, row in zip(labels, rows, strict=True)
        ]


class _Values:
    """What the answers of a regression must be."""

    def __init__(self, manifest: Manifest) -> None:
        assert manifest.interval is not None  # for mypy: it is a regression's manifest
        self._margin = manifest.interval.margin

    def of_tensors(self, outputs: dict[str, list[Any]]) -> list[dict[str, Any]]:
        ends = iter(outputs["interval"])
        return self._zipped(outputs["value"], zip(ends, ends, strict=True))

    def of_columns(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        return self._zipped(answer["values"], answer["intervals"])

    def wrong(self, prediction: dict[str, Any]) -> str | None:
        value, (low, high) = prediction["value"], prediction["interval"]
        near = TOLERANCE * (1 + abs(value) + self._margin)
        # Written so that NaN is wrong as well; null is another shape.
        if not (abs(value - self._margin - low) <= near and abs(value + self._margin - high) <= near):
            return "an interval that is not the value plus and minus the margin"
        return None

    @staticmethod
    def _zipped(values: list[float], intervals: Iterable[Iterable[float]]) -> list[dict[str, Any]]:
        return [
            {"value": value, "interval": interval} for value, interval in zip(values, intervals, strict=True)
        ]


class Traffic:
    """Requests for one bundle.

    Attributes:
        manifest: the bundle's manifest, as `/model` gave it.
    """

    def __init__(self, manifest: Manifest, random: Random) -> None:
        self.manifest = manifest
        self._random = random
        source = RowSource(manifest)
        fewest, most = POOL_ROWS
        count = min(max(POOL_CELLS // len(manifest.features), fewest), most)
        self._rows = [source.draw(random) for _ in range(count)]
        self._json = [_dumps(self._sparse(row)) for row in self._rows]
        self._most_rows = max(1, MAX_BATCH_BYTES // max(map(len, self._json)))
        self._infer_path = f"/v2/models/{quote(manifest.name, safe='')}/infer"
        self._bad = self._bad_kinds()
        self._judge = _Classes(manifest) if manifest.task == "classification" else _Values(manifest)

    def instance(self) -> Request:
        """One row as an object."""
        body = self._random.choice(self._json)
        return Request("predict: one row", "/predict", body, "one row", "instance", rows=1)

    def instances(self) -> Request:
        """A batch, row by row."""
        rows = self._random.choices(self._json, k=self._size(BATCH_SIZES))
        return Request(
            "predict: instances", "/predict", _instances(rows), "batch", "instances", rows=len(rows)
        )

    def columns(self) -> Request:
        """A larger batch, column by column."""
        rows = self._random.choices(self._rows, k=self._size(COLUMN_SIZES))
        body = _dumps({"columns": {name: [row[name] for row in rows] for name in rows[0]}})
        return Request("predict: columns", "/predict", body, "batch", "columns", rows=len(rows))

    def tensors(self) -> Request:
        """One row or a few over the Open Inference Protocol."""
        rows = self._random.choices(self._rows, k=self._size((1, 1, 1, 2, 5, 10)))
        body = _dumps({"inputs": self._inputs(rows)})
        return Request("v2: infer", self._infer_path, body, "tensors", "tensors", rows=len(rows))

    def bad(self) -> Request:
        """A request that the service must refuse."""
        return self._random.choice(self._bad)()

    def bad_of_each_kind(self) -> list[Request]:
        return [make() for make in self._bad]

    def fault(self, request: Request, status: int, content: bytes) -> str | None:
        """What is wrong with an answer, None if nothing is.

        The text holds no values, so that the same fault is one line of the statistics.
        """
        if status != request.status:
            return f"{request.about}: {status} instead of {request.status}{_quoted(content)}"
        try:
            answer = orjson.loads(content)
        except ValueError:
            return f"{request.about}: the answer is not JSON"
        try:
            wrong = self._wrong(request, answer)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            wrong = f"the answer has another shape ({type(error).__name__})"
        return f"{request.about}: {wrong}" if wrong else None

    def _wrong(self, request: Request, answer: dict[str, Any]) -> str | None:
        if request.shape == "error":
            return _wrong_refusal(request, answer)
        if request.shape == "tensors":
            version = answer["model_version"]
            predictions = self._judge.of_tensors({each["name"]: each["data"] for each in answer["outputs"]})
        else:
            version = answer["model"]["version"]
            if request.shape == "columns":
                predictions = self._judge.of_columns(answer)
            else:
                predictions = answer["predictions"] if request.shape == "instances" else [answer]
        if version != self.manifest.version:
            return "another model version than at the start"
        if len(predictions) != request.rows:
            return "not as many predictions as rows"
        return next(filter(None, map(self._judge.wrong, predictions)), None)

    def _size(self, sizes: tuple[int, ...]) -> int:
        return min(self._random.choice(sizes), self._most_rows)

    def _sparse(self, row: Row) -> Row:
        """The row with about half of its missing values left out instead of null: both are allowed."""
        return {name: v for name, v in row.items() if v is not None or self._random.random() < 0.5}

    def _inputs(self, rows: list[Row]) -> list[dict[str, Any]]:
        return [
            {
                "name": feature.name,
                "shape": [len(rows)],
                "datatype": "FP64" if feature.type == "number" else "BYTES",
                "data": [row[feature.name] for row in rows],
            }
            for feature in self.manifest.features
        ]

    def _bad_kinds(self) -> list[Callable[[], Request]]:
        """One function for every kind of mistake that this bundle's schema knows."""
        features = self.manifest.features
        first = features[0]
        wrong: Any = "many" if first.type == "number" else 12.5
        unknown = "unknown_feature"
        while unknown in (feature.name for feature in features):
            unknown += "_"

        def refused(
            about: str, body: str, field: str | None = None, path: str = "/predict", **other: Any
        ) -> Request:
            expected = {"status": 422, **other}
            return Request(f"bad: {expected['status']}", path, body, about, "error", field=field, **expected)

        def row_with(name: str, value: Any) -> str:
            return _dumps(self._random.choice(self._rows) | {name: value})

        def broken_batch() -> str:
            rows = self._random.choices(self._json, k=self._size((2, 5, 10)))
            rows[self._random.randrange(len(rows))] = row_with(first.name, wrong)
            return _instances(rows)

        def wrong_datatype() -> str:
            inputs = self._inputs([self._random.choice(self._rows)])
            inputs[0]["datatype"] = "BYTES" if first.type == "number" else "FP64"
            return _dumps({"inputs": inputs})

        kinds: list[Callable[[], Request]] = [
            lambda: refused("unknown field", row_with(unknown, 1), unknown),
            lambda: refused("wrong type", row_with(first.name, wrong), first.name),
            lambda: refused("wrong type in a batch", broken_batch(), first.name),
            lambda: refused("wrong tensor type", wrong_datatype(), first.name, self._infer_path),
            lambda: refused("no rows", '{"instances":[]}', "instances"),
            # Without its brace no object is complete, whatever its values.
            lambda: refused("cut short", self._random.choice(self._json)[:-1]),
            lambda: refused("wrong media type", "a,b\n1,2\n", status=415, content_type="text/csv"),
        ]
        needed = next((f.name for f in features if not f.missing), None)
        if needed is not None:
            kinds.append(
                lambda: refused(
                    "missing field",
                    _dumps({n: v for n, v in self._random.choice(self._rows).items() if n != needed}),
                    needed,
                )
            )
        limited = next((f for f in features if f.type == "number" and f.bounded), None)
        if limited is not None and self.manifest.out_of_range == "reject":
            far = 2 * abs(limited.maximum) + limited.step
            kinds.append(lambda: refused("out of range", row_with(limited.name, far), limited.name))
        closed = next((f for f in features if f.type == "category"), None)
        if closed is not None:
            other = "".join(closed.categories) + "?"
            kinds.append(lambda: refused("unknown category", row_with(closed.name, other), closed.name))
        return kinds


def _wrong_refusal(request: Request, answer: dict[str, Any]) -> str | None:
    if not (answer["error"] and answer["code"]):
        return "a refusal without a reason"
    fields = [detail["field"] for detail in answer["details"]]
    if request.field is not None and not any(field.endswith(request.field) for field in fields):
        return "a refusal that does not name the field"
    return None


def _instances(rows: list[str]) -> str:
    return '{"instances":[' + ",".join(rows) + "]}"


def _dumps(content: object) -> str:
    return orjson.dumps(content).decode()


def _quoted(content: bytes) -> str:
    """The service's own reason, with its numbers taken out because they differ from row to row."""
    try:
        reason = str(orjson.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
    return ": " + re.sub(r"\d+", "#", reason)[:120]
