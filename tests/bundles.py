"""Tiny bundles with known answers, built by hand so that tests of the service need no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from app.contract import (
    MISSING_BIN,
    Bin,
    Bundle,
    CategoryFeature,
    DataOrigin,
    DatetimeFeature,
    Example,
    Explanation,
    Feature,
    Interval,
    Manifest,
    ModelFile,
    NumberFeature,
    Score,
    as_label,
    sha256,
    write_bundle,
)

OPSET = 17
IRIS_CLASSES = ("setosa", "versicolor", "virginica")
IRIS_FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
IRIS_WEIGHTS = np.array(
    [[0.4, 0.3, -0.6], [0.8, -0.2, -0.3], [-1.6, 0.2, 1.4], [-0.8, -0.4, 1.6]], dtype=np.float64
)
IRIS_BIAS = np.array([3.0, 1.5, -4.5])
IRIS_TYPICAL = np.array([5.8, 3.0, 4.3, 1.3])
IRIS_BASE = IRIS_TYPICAL @ IRIS_WEIGHTS + IRIS_BIAS
"""The scores of a row of typical values, from which the explanations start."""

PLANT_CLASSES = ("no", "yes")
SOILS = ("clay", "löss & loam", "sand")
RESERVED_SOILS = ("missing", "other", "'missing'", " missing", "Missing")
"""Categories that are, or nearly are, words that the metrics reserve."""
PLANT_WEIGHTS = np.array([[-0.5, 0.5], [0.25, -0.25], [0.125, -0.125], [-0.25, 0.25]])
"""Of height, age, and month and hour of sowing."""
PLANT_SOILS = np.array([[0.0, 0.0], [1.0, -1.0], [-2.0, 2.0], [0.5, 0.5]])
"""Scores added by soil: clay, löss & loam, sand, missing."""

HARVEST_WEIGHTS = np.array([[-0.25], [0.125], [-1.125], [0.5]])
"""The typical time of sowing adds nothing."""
HARVEST_SOILS = np.array([[0.0], [2.0], [-8.0], [0.5]])
"""Kilogrammes added by soil, in the same order."""
SOWN = DatetimeFeature(
    name="sown",
    description="When the seed was sown",
    parts=("month", "hour"),
    timezone="Europe/Berlin",
    earliest="2023-03-01T08:00:00+01:00",
    latest="2024-09-30T18:30:00+02:00",
    typical="2024-04-15T09:30:00+02:00",
    step=60,
    missing=True,
    bins=(Bin(label="all", share=0.9), Bin(label=MISSING_BIN, share=0.1)),
)
MARGIN = 2.5
HARVEST = NumberFeature(
    name="harvest",
    unit="kg",
    description="Fruit of a plant in a year",
    minimum=-12,
    maximum=16,
    bounded=False,
    step=0.5,
    typical=2,
    missing=False,
    edges=(-5.0, 0.0, 5.0),
    bins=tuple(
        Bin(label=label, share=share)
        for label, share in (("..-5", 0.2), ("-5..0", 0.3), ("0..5", 0.4), ("5..", 0.1))
    ),
)
"""The target of the regressions."""
INTERVAL = Interval(level=0.9, margin=MARGIN, coverage=Score(value=0.91, low=0.84, high=0.96))
PREDICTED = (0.1, 0.4, 0.45, 0.05)
SCORES = {"accuracy": Score(value=0.97, low=0.92, high=1.0)}
VALUE_SCORES = {
    "r2": Score(value=0.83, low=0.78, high=0.88),
    "rmse": Score(value=1.52, low=1.4, high=1.69),
    "mae": Score(value=1.1, low=1.02, high=1.21),
    "median_absolute_error": Score(value=0.85),
}


@dataclass(frozen=True)
class Row:
    """A valid instance and what the model must answer."""

    values: dict[str, float | str | None]
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class ValuedRow:
    """A valid instance and the value that a regression must answer."""

    values: dict[str, float | str | None]
    value: float

    @property
    def interval(self) -> list[float]:
        return [self.value - MARGIN, self.value + MARGIN]


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def number_row(values: tuple[float, ...]) -> Row:
    """What the number bundle must answer for one row of four numbers."""
    answer = softmax(np.array(values) @ IRIS_WEIGHTS + IRIS_BIAS)
    return Row(
        values=dict(zip(IRIS_FEATURES, values, strict=True)),
        label=IRIS_CLASSES[int(answer.argmax())],
        probabilities=dict(zip(IRIS_CLASSES, answer.tolist(), strict=True)),
    )


def mixed_row(height: float | None, age: float, soil: str | None, sown: str | None = None) -> Row:
    """What the mixed bundle must answer; a missing height counts as 10, its imputed value."""
    numbers = _numbers(height, age, sown)
    scores = numbers @ PLANT_WEIGHTS + PLANT_SOILS[SOILS.index(soil) if soil is not None else 3]
    answer = softmax(scores)
    return Row(
        values={"Höhe (cm)": height, "age": age, "soil type": soil, "sown": sown},
        label=PLANT_CLASSES[int(answer.argmax())],
        probabilities=dict(zip(PLANT_CLASSES, answer.tolist(), strict=True)),
    )


def weight_row(values: tuple[float, ...]) -> ValuedRow:
    """What the regression of four numbers must answer: their sum less 10."""
    return ValuedRow(dict(zip(IRIS_FEATURES, values, strict=True)), float(sum(values)) - 10)


def harvest_row(height: float | None, age: float, soil: str | None, sown: str | None = None) -> ValuedRow:
    """What the mixed regression must answer; a missing height counts as 10."""
    numbers = _numbers(height, age, sown)
    added = HARVEST_SOILS[SOILS.index(soil) if soil is not None else 3]
    return ValuedRow(
        values={"Höhe (cm)": height, "age": age, "soil type": soil, "sown": sown},
        value=float((numbers @ HARVEST_WEIGHTS + added)[0]),
    )


def _numbers(height: float | None, age: float, sown: str | None) -> NDArray[np.float64]:
    """The numbers of a row with the imputed values. In Berlin it is an hour later than in UTC, or two in summer."""
    month, hour = 0, 0
    if sown is not None:
        local = datetime.fromisoformat(sown).astimezone(ZoneInfo("Europe/Berlin"))
        month, hour = local.month, local.hour
    return np.array([10.0 if height is None else height, age, month, hour])


def contributions_of(values: tuple[float, ...]) -> NDArray[np.float64]:
    """What each of four numbers adds to the score of each class, with `IRIS_BASE`."""
    result: NDArray[np.float64] = (np.array(values) - IRIS_TYPICAL)[:, np.newaxis] * IRIS_WEIGHTS
    return result


def write_number_bundle(
    directory: Path,
    *,
    out_of_range: str = "reject",
    explained: bool = False,
    names: tuple[str, ...] = IRIS_FEATURES,
) -> Manifest:
    """Four numbers, three classes, as Iris: a linear model whose answers `number_row` knows.

    Args:
        directory: of the bundle.
        out_of_range: what happens to other values.
        explained: whether it explains its answers; `contributions_of` knows how.
        names: of the features.
    """
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["numbers", "weights"], ["scores"]),
            helper.make_node("Add", ["scores", "bias"], ["biased"]),
            *_answer_nodes("biased"),
        ],
        "number",
        [helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, [None, 4])],
        _outputs(3),
        [_constant("weights", IRIS_WEIGHTS), _constant("bias", IRIS_BIAS)],
    )
    rows = [
        number_row((5.1, 3.5, 1.4, 0.2)),
        number_row((6.0, 2.9, 4.5, 1.5)),
        number_row((6.9, 3.1, 5.4, 2.1)),
    ]
    return _write(
        directory,
        graph,
        name="iris",
        classes=IRIS_CLASSES,
        target="species",
        features=_iris_features(names),
        rows=rows if names == IRIS_FEATURES else [],
        out_of_range=out_of_range,
        explanation=_iris_explanation() if explained else None,
    )


def write_mixed_bundle(
    directory: Path, soils: tuple[str, ...] = SOILS, shares: tuple[float, ...] = (0.5, 0.2, 0.2, 0.1)
) -> Manifest:
    """Two numbers, a category and a datetime, all but `age` allowed to be missing; names are not identifiers.

    Args:
        directory: of the bundle.
        soils: the categories; `mixed_row` knows the answers of the usual ones.
        shares: of the training rows in each of these, and without one.
    """
    rows = [
        mixed_row(12.0, 3.0, "clay", "2024-05-01T14:30:00+02:00"),
        mixed_row(None, 30.0, None),
        mixed_row(3.0, 8.0, "sand", "2024-01-31T08:00:00+01:00"),
    ]
    return _write(
        directory,
        _mixed_graph(soils, PLANT_WEIGHTS, PLANT_SOILS, _answer_nodes("total"), _outputs(2)),
        name="plants",
        classes=PLANT_CLASSES,
        target="ripe",
        features=_mixed_features(soils, shares),
        rows=[row for row in rows if row.values["soil type"] in (*soils, None)],
    )


def write_value_bundle(directory: Path, *, out_of_range: str = "reject", single: bool = False) -> Manifest:
    """A regression of four numbers, whose answers `weight_row` knows; `single` for an output of float32."""
    kind = TensorProto.FLOAT if single else TensorProto.DOUBLE
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["numbers", "axis"], ["sum"], keepdims=1),
            helper.make_node("Sub", ["sum", "ten"], ["exact"]),
            helper.make_node("Cast", ["exact"], ["value"], to=kind),
        ],
        "weights",
        [helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, [None, 4])],
        [helper.make_tensor_value_info("value", kind, [None, 1])],
        [_constant("axis", np.array([1])), _constant("ten", np.array([[10.0]]))],
    )
    rows = [
        weight_row((5.1, 3.5, 1.4, 0.2)),
        weight_row((6.0, 2.9, 4.5, 1.5)),
        weight_row((6.9, 3.1, 5.4, 2.1)),
    ]
    return _write(
        directory, graph, name="weights", features=_iris_features(), rows=rows, out_of_range=out_of_range
    )


def write_harvest_bundle(directory: Path) -> Manifest:
    """A regression with the features of `write_mixed_bundle`, whose answers `harvest_row` knows."""
    graph = _mixed_graph(
        SOILS,
        HARVEST_WEIGHTS,
        HARVEST_SOILS,
        [helper.make_node("Identity", ["total"], ["value"])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 1])],
    )
    features = _mixed_features(SOILS, (0.5, 0.2, 0.2, 0.1))
    rows = [
        harvest_row(12.0, 3.0, "clay", "2024-05-01T14:30:00+02:00"),
        harvest_row(None, 30.0, None),
        harvest_row(3.0, 80.0, "sand", "2024-01-31T08:00:00+01:00"),
    ]
    return _write(directory, graph, name="harvests", features=features, rows=rows)


def _iris_explanation() -> onnx.GraphProto:
    return helper.make_graph(
        [
            helper.make_node("Sub", ["numbers", "typical"], ["distances"]),
            helper.make_node("Unsqueeze", ["distances", "last"], ["columns"]),
            helper.make_node("Mul", ["columns", "weights"], ["contributions"]),
        ],
        "explanation",
        [helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, [None, 4])],
        [helper.make_tensor_value_info("contributions", TensorProto.DOUBLE, [None, 4, 3])],
        [
            _constant("typical", IRIS_TYPICAL),
            _constant("last", np.array([2])),
            _constant("weights", IRIS_WEIGHTS),
        ],
    )


def _iris_features(names: tuple[str, ...] = IRIS_FEATURES) -> tuple[NumberFeature, ...]:
    ranges = ((1.0, 12.0, 5.8), (1.0, 8.0, 3.0), (0.1, 12.0, 4.3), (0.1, 5.0, 1.3))
    return tuple(
        NumberFeature(
            name=name,
            unit="cm",
            description=name.replace("_", " ").capitalize(),
            minimum=low,
            maximum=high,
            bounded=True,
            step=0.1,
            typical=typical,
            missing=False,
            edges=(typical - 0.5, typical, typical + 0.5),
            bins=tuple(Bin(label=f"bin {index}", share=0.25) for index in range(4)),
        )
        for name, (low, high, typical) in zip(names, ranges, strict=True)
    )


def _mixed_graph(
    soils: tuple[str, ...],
    weights: NDArray[np.float64],
    by_soil: NDArray[np.float64],
    answers: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
) -> onnx.GraphProto:
    """A linear model; `answers` are the nodes from its `total` to the outputs."""
    scores = by_soil[[*(index % 3 for index in range(len(soils))), 3]]
    return helper.make_graph(
        [
            helper.make_node("IsNaN", ["numbers"], ["gaps"]),
            helper.make_node("Where", ["gaps", "fill", "numbers"], ["filled"]),
            helper.make_node("MatMul", ["filled", "weights"], ["scores"]),
            helper.make_node(
                "LabelEncoder",
                ["categories"],
                ["soil"],
                domain="ai.onnx.ml",
                keys_strings=[*soils, ""],
                values_int64s=range(len(soils) + 1),
            ),
            helper.make_node("Squeeze", ["soil", "axis"], ["soil_index"]),
            helper.make_node("Gather", ["soils", "soil_index"], ["soil_scores"]),
            helper.make_node("Add", ["scores", "soil_scores"], ["total"]),
            *answers,
        ],
        "mixed",
        [
            helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, [None, 4]),
            helper.make_tensor_value_info("categories", TensorProto.STRING, [None, 1]),
        ],
        outputs,
        [
            _constant("fill", np.array([[10.0, 0.0, 0.0, 0.0]])),
            _constant("weights", weights),
            _constant("soils", scores),
            _constant("axis", np.array([1])),
        ],
    )


def _mixed_features(soils: tuple[str, ...], shares: tuple[float, ...]) -> tuple[Feature, ...]:
    return (
        NumberFeature(
            name="Höhe (cm)",
            unit="cm",
            minimum=0,
            maximum=50,
            typical=10,
            missing=True,
            edges=(5.0, 20.0),
            bins=_bins(("low", 0.3), ("middle", 0.4), ("high", 0.2), ("missing", 0.1)),
            step=1.0,
            bounded=True,
        ),
        CategoryFeature(
            name="soil type",
            categories=soils,
            typical=soils[0],
            missing=True,
            bins=_bins(
                *zip([*(as_label(each, MISSING_BIN) for each in soils), MISSING_BIN], shares, strict=True)
            ),
        ),
        NumberFeature(
            name="age",
            unit="weeks",
            description="Weeks since sowing",
            minimum=0,
            maximum=100,
            typical=8,
            missing=False,
            edges=(8.0,),
            bins=_bins(("young", 0.5), ("old", 0.5)),
            step=1.0,
            bounded=True,
        ),
        SOWN,
    )


def write_wide_bundle(
    directory: Path, features: int, classes: tuple[str, ...], *, missing: bool = False
) -> Manifest:
    """Any number of numbers from 0 to 200, called f0, f1, …, and any classes."""
    generator = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["numbers"], ["gaps"]),
            helper.make_node("Where", ["gaps", "fill", "numbers"], ["filled"]),
            helper.make_node("MatMul", ["filled", "weights"], ["scores"]),
            *_answer_nodes("scores"),
        ],
        "wide",
        [helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, [None, features])],
        _outputs(len(classes)),
        [
            _constant("fill", np.zeros((1, features))),
            _constant("weights", generator.normal(size=(features, len(classes))) / 100),
        ],
    )
    bins = [("low", 0.5), ("high", 0.5), *([("missing", 0.0)] if missing else [])]
    number = NumberFeature(
        name="f",
        minimum=0,
        maximum=200,
        bounded=True,
        step=1,
        typical=1,
        missing=missing,
        edges=(1.0,),
        bins=_bins(*bins),
    )
    return _write(
        directory,
        graph,
        name="wide",
        classes=classes,
        target="kind",
        features=tuple(number.model_copy(update={"name": f"f{index}"}) for index in range(features)),
        rows=[],
    )


def _write(
    directory: Path,
    graph: onnx.GraphProto,
    *,
    name: str,
    features: tuple[Feature, ...],
    rows: Sequence[Row | ValuedRow],
    classes: tuple[str, ...] = (),
    target: str = HARVEST.name,
    out_of_range: str = "reject",
    explanation: onnx.GraphProto | None = None,
) -> Manifest:
    """Write a bundle: a regression of the harvest if there are no classes."""
    content = _content(graph)
    file = None if explanation is None else _content(explanation)
    manifest = Manifest.model_validate(
        {
            "name": name,
            "algorithm": "logistic_regression" if classes else "ridge",
            "target": target,
            "classes": classes,
            "class_shares": [1 / len(classes)] * len(classes) if classes else [],
            "value": None if classes else HARVEST,
            "interval": None if classes else INTERVAL,
            "predicted": () if classes else PREDICTED,
            "explanation": None
            if file is None
            else Explanation(file=_described(file), unit="log-odds", base=tuple(IRIS_BASE.tolist())),
            "out_of_range": out_of_range,
            "features": features,
            "metrics": {"test": SCORES if classes else VALUE_SCORES},
            "data": DataOrigin(source="made:by-hand", sha256="0" * 64, train_rows=100, test_rows=50),
            "model": _described(content),
            "examples": [
                Example(values=row.values, label=row.label if isinstance(row, Row) else row.value + 1)
                for row in rows
            ],
        }
    ).sealed()
    directory.mkdir(parents=True, exist_ok=True)
    write_bundle(Bundle(manifest=manifest, model=content, explanation=file), directory)
    return manifest


def _content(graph: onnx.GraphProto) -> bytes:
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _described(content: bytes) -> ModelFile:
    return ModelFile(sha256=sha256(content), bytes=len(content), opset=OPSET)


def _answer_nodes(scores: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Softmax", [scores], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]


def _outputs(classes: int) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, [None, classes]),
    ]


def _constant(name: str, value: NDArray[np.float64] | NDArray[np.int64]) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def _bins(*bins: tuple[str, float]) -> tuple[Bin, ...]:
    return tuple(Bin(label=label, share=share) for label, share in bins)
