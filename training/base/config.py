"""Reads a model's `params.yaml`, completed with the repository's defaults.

Each stage asks for the sections it needs as a frozen settings class, and `dvc.yaml` lists the same sections
as that stage's parameters (a test compares the two), so DVC reruns a stage exactly when its settings change.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode

from app.cells import Cells
from app.contract import Task
from training.base.defaults import complete
from training.base.errors import ConfigError

PARAMS_FILE = Path("params.yaml")
SETTINGS_FILE = Path("reports/settings.json")
"""The parameters with the defaults, which the stage `settings` writes and DVC compares."""
DEFAULTS_FILE = Path(__file__).parents[1] / "defaults.yaml"
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
VERSION = re.compile(r"[0-9a-f]{12}\Z")
RESERVED_FEATURES = frozenset({"instances", "columns"})
"""Top-level keys of a request to /predict, which a feature of the same name would conflict with."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _as_text(value: Any) -> Any:
    """Accept a number where a class or category is meant, as the text that the file has.

    A spelling such as 1.10 or 010, which YAML would not write, is refused: DVC does not see a change from 1.10 to 1.1.
    """
    if isinstance(value, bool | date) or value is None:
        kind = "a boolean" if isinstance(value, bool) else "nothing" if value is None else "a date"
        raise ValueError(f"YAML reads this as {kind}: put the value in quotes")
    if not isinstance(value, int | float):
        return value
    text, spelling = str(value), getattr(value, "spelling", None)
    if spelling not in (None, text):
        raise ValueError(f"YAML reads {spelling} as the number {text}: put it in quotes, as '{spelling}'")
    return text


Text = Annotated[str, BeforeValidator(_as_text)]


def _is_version(value: Any) -> Any:
    if not isinstance(value, str) or not VERSION.match(value):
        # Unquoted, YAML takes a version without letters for a number and drops its leading zeros.
        raise ValueError(f"a version is twelve hexadecimal digits in quotes, and {value!r} is not")
    return value


Version = Annotated[str, BeforeValidator(_is_version)]
"""Of a bundle."""


class DataSettings(Settings):
    source: str = Field(min_length=1)
    encoding: str = "utf-8"
    """Of a CSV file; a byte order mark goes before it."""
    rename: dict[Text, Text] = {}
    units: dict[Text, str] = {}
    """By column, the unit before or after its numbers, which is removed."""
    replace: dict[Text, dict[Text, Text]] = {}
    missing: tuple[Text, ...] = ()
    """Texts that mean "no value", beside the empty cell, wherever the schema does not declare them as values."""
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", "'", " "] = ""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            b"-".decode(value)
        except UnicodeDecodeError:
            pass  # of UTF-16, half a character
        except (LookupError, ValueError):
            raise ValueError(
                f"{value!r} is not an encoding: utf-8, cp1252, latin-1 and utf-16 are some"
            ) from None
        return value

    @field_validator("units")
    @classmethod
    def _are_no_numbers(cls, value: dict[str, str]) -> dict[str, str]:
        for column, unit in value.items():
            if not unit.strip() or re.search(r"[\d.,+-]", unit):
                raise ValueError(
                    f"{column}: {unit!r} is not a unit; write what stands beside the numbers, such as '%' or kg"
                )
        return {column: unit.strip() for column, unit in value.items()}

    @field_validator("missing")
    @classmethod
    def _stripped(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each.strip() for each in value)

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands cannot both be {self.decimal!r}")
        return self

    @property
    def cells(self) -> Cells:
        """How the source's cells are read."""
        return Cells(missing=self.missing, decimal=self.decimal, thousands=self.thousands)


class NumberSettings(Settings):
    type: Literal["number"]
    unit: str | None = None
    description: str | None = None
    range: tuple[float, float] | None = None
    step: float | None = Field(default=None, gt=0)
    """Resolution of the values; derived from the data when absent."""
    missing: float = Field(default=0.0, ge=0, le=1)
    """The largest share of missing values that is allowed; above zero the service takes missing values too."""

    @field_validator("range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"the range must ascend, and {list(value)} does not")
        return value


class CategorySettings(Settings):
    type: Literal["category"]
    description: str | None = None
    categories: tuple[Text, ...] | None = None
    """All values; derived from the data when absent."""
    missing: float = Field(default=0.0, ge=0, le=1)

    @field_validator("categories")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(set(value)) != len(value) or "" in value or not value):
            raise ValueError("categories must be distinct and not empty")
        return value


FeatureSettings = Annotated[NumberSettings | CategorySettings, Field(discriminator="type")]


_OF_CLASSES = ("classes", "min_rows_per_class", "drop_classes")
_OF_VALUES = ("unit", "range", "step", "description")
"""Keys of the section schema that only one task has."""


class SchemaSettings(Settings):
    target: Text
    task: Task = "classification"
    """A regression's target is a number."""
    classes: tuple[Text, ...] | None = None
    """In display order; derived from the data, sorted, when absent."""
    min_rows_per_class: int = Field(default=20, ge=2)
    drop_classes: tuple[Text, ...] = ()
    """Classes whose rows are left out, such as those too rare to learn."""
    unit: str | None = None
    """Of a regression's target, as the next three."""
    description: str | None = None
    range: tuple[float, float] | None = None
    step: float | None = Field(default=None, gt=0)
    weight: Text | None = None
    """Column of the source that says how much a row counts, in training and in scores; it need not be a feature."""
    missing_target: Literal["reject", "drop"] = "reject"
    """What to do with rows without a class or value."""
    duplicates: Literal["drop", "reject", "keep"] = "reject"
    out_of_range: Literal["reject", "accept"] = "reject"
    features: dict[Text, FeatureSettings] = Field(min_length=1)

    @property
    def value(self) -> NumberSettings | None:
        """The target of a regression, declared as a feature is."""
        if self.task == "classification":
            return None
        return NumberSettings(
            type="number", unit=self.unit, description=self.description, range=self.range, step=self.step
        )

    @model_validator(mode="after")
    def _keys_fit_the_task(self) -> Self:
        others = _OF_CLASSES if self.task == "regression" else _OF_VALUES
        if given := [each for each in others if each in self.model_fields_set]:
            other = "classification" if self.task == "regression" else "regression"
            raise ValueError(f"{given[0]} belongs to a {other}, and the task is {self.task}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"the range must ascend, and {list(self.range)} does not")
        return self

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.target in self.features:
            raise ValueError(f"the target {self.target!r} is also listed as a feature")
        for name in self.features:
            if not name or name in RESERVED_FEATURES:
                raise ValueError(f"a feature cannot be called {name!r}: rename it under data.rename")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be distinct")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError("a classifier needs at least two classes")
        both = set(self.classes or ()) & set(self.drop_classes)
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: listed under classes and under drop_classes")
        return self


class SplitSettings(Settings):
    by: Literal["random", "time", "group", "group_time"] = "random"
    """What keeps training and test apart; the folds of cross-validation and search follow it too."""
    time: Text | None = None
    """Column of the source whose newest rows are the test split; it need not be a feature."""
    group: Text | None = None
    """Column of the source whose values, such as patients, are never on both sides."""
    test_share: float = Field(default=0.25, gt=0, lt=1)
    seed: int = Field(default=7, ge=0)

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        for key in ("time", "group"):
            given, needed = getattr(self, key) is not None, key in self.by.split("_")
            if needed and not given:
                raise ValueError(f"by: {self.by} needs `{key}: COLUMN`")
            if given and not needed:
                raise ValueError(
                    f"{key} is given, and by: {self.by} does not use it: write `by: {key}` or remove it"
                )
        return self


_ClassMetric = Literal[
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "log_loss",
    "roc_auc",
    "average_precision",
    "brier_score",
    "calibration_error",
    "cost",
]
_ValueMetric = Literal["r2", "rmse", "mae", "median_absolute_error"]
Metric = Literal[_ClassMetric, _ValueMetric]

METRICS: dict[Task, tuple[Metric, ...]] = {
    "classification": get_args(_ClassMetric),
    "regression": get_args(_ValueMetric),
}
"""`cost` only where params.yaml says what mistakes cost (`decision.cost`)."""
LOWER_IS_BETTER: frozenset[Metric] = frozenset(
    {"log_loss", "brier_score", "calibration_error", "cost", "rmse", "mae", "median_absolute_error"}
)
OF_PROBABILITIES: frozenset[Metric] = frozenset(
    {"log_loss", "roc_auc", "average_precision", "brier_score", "calibration_error"}
)
"""Metrics that a threshold does not change."""
SECOND_SCORE: dict[Task, Metric] = {"classification": "log_loss", "regression": "rmse"}
"""The metric that is shown beside the one that selects."""
_DEFAULT_SCORE: dict[Task, Metric] = {"classification": "f1_macro", "regression": "r2"}


class EvaluateSettings(Settings):
    folds: int = Field(default=5, ge=2)
    seed: int = Field(default=7, ge=0)
    score: Metric | None = None
    """What cross-validation and search optimise; f1_macro or r2 when absent."""
    bootstrap: int = Field(default=1000, ge=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    parity_rows: int = Field(default=100_000, ge=1000)
    interval: float = Field(default=0.9, ge=0.5, lt=1)
    """The share of the true values that a regression's prediction interval is made to hold."""

    slices: tuple[Text, ...] = ()
    """Columns of the source by whose values the test split is measured, too; they need not be features."""

    def score_of(self, task: Task) -> Metric:
        """The metric to optimise.

        Raises:
            ConfigError: the task does not have it.
        """
        score = self.score or _DEFAULT_SCORE[task]
        check_metrics("evaluate.score", [score], task)
        return score


def check_metrics(where: str, metrics: Iterable[Metric], task: Task) -> None:
    """Raise ConfigError for a metric that a task does not have."""
    if wrong := [each for each in metrics if each not in METRICS[task]]:
        raise ConfigError(
            f"{PARAMS_FILE}: {where}: {wrong[0]} is no metric of a {task}; there are {', '.join(METRICS[task])}"
        )


class MistakeCosts(Settings):
    """What the mistakes of a classification with two classes cost; a right answer costs nothing."""

    false_positive: float = Field(ge=0)
    false_negative: float = Field(ge=0)


Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class DecisionSettings(Settings):
    """How a class follows from the probabilities."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["tuned"] = 0.5
    """The probability from which two classes are decided for the positive one; tuned: on cross-validated predictions."""
    positive: Text | None = None
    """The class that false_positive and threshold are about; the second when absent."""
    cost: MistakeCosts | dict[Text, dict[Text, Cost]] | None = None
    """Of two classes' mistakes; or by actual class, then by answered class: what is not listed costs nothing."""

    @model_validator(mode="before")
    @classmethod
    def _one_form_of_cost(cls, block: Any) -> Any:
        # A union's message would be about both of its forms.
        if isinstance(block, dict) and isinstance(cost := block.get("cost"), dict) and cost:
            matrix = all(isinstance(each, dict) for each in cost.values())
            if not matrix:
                unknown = cost.keys() - MistakeCosts.model_fields.keys()
                missing = MistakeCosts.model_fields.keys() - cost.keys()
                if unknown or missing:
                    raise ValueError(
                        "cost is {false_positive: …, false_negative: …}, or {ACTUAL: {ANSWERED: …}} by class"
                    )
        return block


class Distribution(Settings):
    """Where random and halving search draw a number from."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("low and high must be finite")
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("integer: true needs whole numbers for low and high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic scale needs low above 0")
        return self


def _check_no_number_in_text(name: str, *values: Any) -> None:
    """XGBoost reads the text `0,1` as 0; no parameter of an estimator has a name that begins as a number does."""
    for value in values:
        if isinstance(value, str) and re.match(r"\s*[-+]?\.?(\d|inf|nan)", value, re.IGNORECASE):
            raise ValueError(
                f"{name}: {value!r} is text where a number is meant; write one without quotes, as 0.5 or 1e-3"
            )


def _kind_of_values(values: Any) -> str | None:
    if isinstance(values, dict | Distribution):
        return _DISTRIBUTION
    return _LIST if isinstance(values, list) else None


_LIST, _DISTRIBUTION = "<list>", "<distribution>"
Values = Annotated[
    Annotated[list[Any], Tag(_LIST)] | Annotated[Distribution, Tag(_DISTRIBUTION)],
    Discriminator(
        _kind_of_values,
        custom_error_type="values",
        custom_error_message="must be a list of values, or low and high",
    ),
]


class SearchSettings(Settings):
    method: Literal["grid", "random", "halving", "tpe"]
    space: dict[str, Values] = Field(min_length=1)
    budget: int = Field(default=20, ge=2)
    """Candidates drawn by all methods but the grid, which tries every combination."""
    seconds: float | None = Field(default=None, gt=0)
    """tpe proposes no candidate after so many; the result then depends on the machine."""
    pruning: bool = True
    """Whether tpe gives up a candidate whose first folds are worse than the median."""
    seed: int = Field(default=7, ge=0)
    folds: int = Field(default=3, ge=2)
    """Inner folds: the search runs inside each outer training fold, so its score is not flattered by it."""

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        for name, values in self.space.items():
            if isinstance(values, list):
                _check_no_number_in_text(name, *values)
            if isinstance(values, Distribution) and self.method == "grid":
                raise ValueError(
                    f"{name}: a grid needs a list of values; low and high go with random, halving and tpe"
                )
            if isinstance(values, list) and not values:
                raise ValueError(f"{name}: the list of values is empty")
            if isinstance(values, list):
                # 1 and 1.0 are equal in Python and not to scikit-learn.
                repeated = [repr(each) for each in values if list(map(repr, values)).count(repr(each)) > 1]
                if repeated:
                    raise ValueError(f"{name}: {repeated[0]} is listed {len(repeated)} times")
        if self.method == "grid" and "budget" in self.model_fields_set:
            raise ValueError("a grid tries every combination: leave budget out")
        if self.method != "tpe" and (given := {"seconds", "pruning"} & self.model_fields_set):
            raise ValueError(f"{min(given)} is for tpe, and the method is {self.method}")
        return self


class AlgorithmSettings(Settings):
    """One block under `train.algorithms`: everything but `search` is handed to the factory function."""

    parameters: dict[str, Any]
    search: SearchSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _split_block(cls, block: Any) -> Any:
        if block is None:
            block = {}
        if isinstance(block, dict):
            rest = {key: value for key, value in block.items() if key != "search"}
            return {"parameters": rest, "search": block.get("search")}
        return block

    @model_validator(mode="after")
    def _numbers_are_numbers(self) -> Self:
        for name, value in self.parameters.items():
            _check_no_number_in_text(name, value)
        return self

    @model_validator(mode="after")
    def _what_is_searched_is_not_fixed(self) -> Self:
        space = self.search.space if self.search else {}
        if both := sorted(space.keys() & self.parameters.keys()):
            raise ValueError(
                f"{both[0]} is fixed and in search.space, which takes its place: remove one of the two"
            )
        return self


class AlgorithmsSettings(Settings):
    algorithms: dict[str, AlgorithmSettings] = Field(min_length=1)

    @field_validator("algorithms")
    @classmethod
    def _names(cls, value: dict[str, AlgorithmSettings]) -> dict[str, AlgorithmSettings]:
        for name in value:
            if not NAME.match(name):
                raise ValueError(f"{name!r} becomes a folder: use lower-case letters, digits and underscores")
        return value


def _better_higher(value: dict[Metric, float]) -> dict[Metric, float]:
    if wrong := LOWER_IS_BETTER & value.keys():
        raise ValueError(f"{min(wrong)} is better when lower: write it under maximum or maximum_rise")
    return value


def _better_lower(value: dict[Metric, float]) -> dict[Metric, float]:
    if wrong := value.keys() - LOWER_IS_BETTER:
        raise ValueError(f"{min(wrong)} is better when higher: write it under minimum or maximum_drop")
    return value


def _moved(block: Any, old: str, new: str) -> Any:
    if isinstance(block, dict) and old in block:
        raise ValueError(f"{old} is written as `{new}: {{log_loss: {block[old]}}}`")
    return block


class ProductionGateSettings(Settings):
    """How much worse than the model in production a champion may be, both measured on the same rows."""

    maximum_drop: Annotated[dict[Metric, Annotated[float, Field(ge=0)]], AfterValidator(_better_higher)] = {}
    maximum_rise: Annotated[dict[Metric, Annotated[float, Field(ge=0)]], AfterValidator(_better_lower)] = {}
    accept_incomparable: Version | None = None
    """The version in production that may be replaced although nothing can be compared with it."""

    @model_validator(mode="before")
    @classmethod
    def _before(cls, block: Any) -> Any:
        return _moved(block, "maximum_log_loss_rise", "maximum_rise")


class GateSettings(Settings):
    minimum: Annotated[dict[Metric, float], AfterValidator(_better_higher)] = {}
    maximum: Annotated[dict[Metric, float], AfterValidator(_better_lower)] = {}
    worst_slice: dict[Metric, float] = {}
    """Of each metric, the bound for every slice (`evaluate.slices`) with enough rows."""
    maximum_latency_ms: float | None = Field(default=None, gt=0)
    maximum_bytes: int | None = Field(default=None, gt=0)
    production: ProductionGateSettings = ProductionGateSettings()

    @model_validator(mode="before")
    @classmethod
    def _before(cls, block: Any) -> Any:
        return _moved(block, "maximum_log_loss", "maximum")

    def check(self, task: Task) -> None:
        """Raise ConfigError for a metric that a task does not have."""
        for where, metrics in (
            ("minimum", self.minimum),
            ("maximum", self.maximum),
            ("worst_slice", self.worst_slice),
            ("production.maximum_drop", self.production.maximum_drop),
            ("production.maximum_rise", self.production.maximum_rise),
        ):
            check_metrics(f"select.gate.{where}", metrics, task)


class SelectSettings(Settings):
    tie: float = Field(default=0.0, ge=0)
    tie_log_loss: float = Field(default=0.1, ge=0)
    """How far the log loss of tied models may be above the lowest: 0.1 is a tenth less of the true class's
    probability."""
    gate: GateSettings = GateSettings()


TO_BE_WRITTEN = "TO BE WRITTEN"
"""The start of each sentence of a drafted card, until somebody replaces it."""


class CardSettings(Settings):
    """The parts of the model card that only a person can write."""

    intended_use: str = Field(min_length=1)
    limits: tuple[str, ...] = ()


class TrackSettings(Settings):
    project: str = Field(min_length=1)
    entity: str | None = None
    timeout_seconds: float = Field(default=300, gt=0)


S = TypeVar("S", bound=Settings)

_WITH_TEXTS = ("data", "schema")
"""Sections with values that stand for cells of the source, whatever type YAML gives them."""


def load(kind: type[S], path: Path = PARAMS_FILE) -> S:
    """Read the sections that `kind` declares as fields; other sections are ignored.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key is unknown, missing or wrong. Names each key.
    """
    document = read(path)
    return validate(kind, {key: value for key, value in document.items() if key in sections(kind)}, path)


def read(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The parameters in a file, with the repository's defaults for what it leaves out.

    Raises:
        ConfigError: the file is missing, or is not YAML that holds sections.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; run this from the folder of a model, such as the project's top folder"
        ) from None
    return completed(content, str(path))


def completed(content: bytes, name: str) -> dict[str, Any]:
    """The parameters in the content of a file of this name, with the repository's defaults for what it leaves out.

    Raises:
        ConfigError: it is not YAML that holds sections.
    """
    try:
        document = parse_yaml(content)
        if not isinstance(document, dict):
            raise ConfigError(f"{name} must be a mapping of sections such as data and schema")
        if not {*document}.isdisjoint(_WITH_TEXTS):
            spelled = parse_yaml(content, spelling=True)
            document |= {key: spelled[key] for key in _WITH_TEXTS if key in document}
    except ValueError as error:
        raise ConfigError(f"{name} is not YAML: {error}") from None
    return complete(document, defaults())


def as_json(document: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them: keys are text, and so are numbers that are not finite.

    Raises:
        ConfigError: a value is none that JSON has.
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(document), parse_constant=str)
    except TypeError as error:
        raise ConfigError(f"{PARAMS_FILE}: a value is no text, number, list or mapping: {error}") from None
    return found


@cache
def defaults() -> dict[str, Any]:
    """The repository's defaults."""
    try:
        document = parse_yaml(DEFAULTS_FILE.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {DEFAULTS_FILE}: {error}") from None
    return document or {}


def validate(kind: type[S], document: dict[str, Any], path: Path = PARAMS_FILE) -> S:
    """Parameters as settings.

    Raises:
        ConfigError: a key is unknown, missing or wrong. Names each key.
    """
    mixed = _mixed_keys(document)
    if mixed:
        raise ConfigError(f"{path}: {mixed}")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_complaints(error))}") from None


def parse_yaml(content: str | bytes, *, spelling: bool = False) -> Any:
    """Read a file that DVC reads or writes, with DVC's own reader: YAML 1.2, in which `1e2` is a number.

    Args:
        content: of the file.
        spelling: whether numbers have an attribute of that name with their text in the file.

    Raises:
        ValueError: it is not YAML in UTF-8; says where in one line.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        # The parser in C, with which DVC reads, refuses some of YAML and crashes on what is nested too deeply.
        reader = YAML(typ="safe", pure=True)
        if spelling:
            reader.Constructor = _SpellingConstructor
        return reader.load(text)
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{' '.join(str(error.problem).split())}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Integer(int):
    spelling: str


class _Float(float):
    spelling: str


class _SpellingConstructor(SafeConstructor):
    def construct_yaml_int(self, node: ScalarNode) -> int:
        value = _Integer(super().construct_yaml_int(node))
        value.spelling = str(node.value)
        return value

    def construct_yaml_float(self, node: ScalarNode) -> float:
        value = _Float(super().construct_yaml_float(node))
        value.spelling = str(node.value)
        return value


for _kind in ("int", "float"):
    _SpellingConstructor.add_constructor(
        f"tag:yaml.org,2002:{_kind}", getattr(_SpellingConstructor, f"construct_yaml_{_kind}")
    )


def sections(kind: type[Settings]) -> list[str]:
    """The top-level sections of `params.yaml` that a settings class reads."""
    return [field.alias or name for name, field in kind.model_fields.items()]


def _mixed_keys(value: Any, where: str = "") -> str | None:
    """Where a mapping has both text and number keys: DVC sorts them, and ends in a traceback."""
    if isinstance(value, dict):
        odd = [key for key in value if not isinstance(key, str)]
        if 0 < len(odd) < len(value):
            key = getattr(odd[0], "spelling", odd[0])
            return f"{where}: the key {key} is not a text as the others are: put it in quotes"
        found = (_mixed_keys(each, f"{where}.{key}".lstrip(".")) for key, each in value.items())
        return next(filter(None, found), None)
    return None


_TAGS = ("number", "category", _LIST, _DISTRIBUTION)
"""Names that pydantic gives members of unions; they are not keys of the file."""


def _complaints(error: ValidationError) -> list[str]:
    lines = []
    for each in error.errors(include_url=False):
        where = ".".join(str(part) for part in each["loc"] if part not in _TAGS)
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = "unknown key"
        elif each["type"] == "missing":
            message = "is missing"
        lines.append(f"{where}: {message}")
    return lines
