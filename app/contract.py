"""The model bundle: training writes it into `model/`, and the service reads it.

A bundle is a directory with two or three files. `model.onnx` is the file that was evaluated, `explain.onnx` explains its
predictions, and `model.json` is the manifest described here. The manifest's `digest` covers all, so a bundle that is
truncated, edited or mixed from two releases is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.cells import PLAIN, Cells
from app.moments import DAY_SECONDS, PARTS, Part, clock

SCHEMA_VERSION = 1
MODEL_FILE = "model.onnx"
EXPLANATION_FILE = "explain.onnx"
MANIFEST_FILE = "model.json"
MISSING_CATEGORY = ""
"""A missing category in the model's string input; a missing number is NaN."""
MISSING_BIN = "missing"
"""The bin of the missing values; `as_label` distinguishes every category from it."""


Task = Literal["classification", "regression"]


class BundleError(Exception):
    """The bundle cannot be served; the message says which file and why, in one line."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bin(Frozen):
    """A slice of one feature's values and the share of the training rows in it."""

    label: str
    share: float = Field(ge=0, le=1)


class NumberFeature(Frozen):
    """A numeric input, served as float64, or the target of a regression."""

    type: Literal["number"] = "number"
    name: str
    unit: str | None = None
    description: str | None = None
    minimum: float
    """The declared minimum, or the lowest value in training if none was declared."""
    maximum: float
    bounded: bool
    """Whether minimum and maximum were declared. Only declared limits can reject a request."""
    step: float = Field(gt=0)
    """The resolution of the values, such as 0.1."""
    typical: float
    """The training median."""
    missing: bool
    """Whether a request may omit it or send null."""
    edges: tuple[float, ...]
    """Ascending limits between bins: bin i has edges[i-1] <= x < edges[i]."""
    bins: tuple[Bin, ...]
    """len(edges) + 1 bins, then one named "missing" if the feature may be missing."""

    @model_validator(mode="after")
    def _bins_fit_edges(self) -> Self:
        if len(self.bins) != len(self.edges) + 1 + self.missing:
            raise ValueError(f"{self.name}: {len(self.bins)} bins do not fit {len(self.edges)} edges")
        if len({each.label for each in self.bins}) != len(self.bins):
            raise ValueError(f"{self.name}: two bins have the same label")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"{self.name}: the edges are not ascending")
        return self


class CategoryFeature(Frozen):
    """A categorical input, served as a string from a closed list."""

    type: Literal["category"] = "category"
    name: str
    unit: None = None
    description: str | None = None
    categories: tuple[str, ...] = Field(min_length=1)
    typical: str
    """The most frequent category in training."""
    missing: bool
    bins: tuple[Bin, ...]
    """One bin per category in the same order, then one named "missing" if the feature may be missing."""

    @model_validator(mode="after")
    def _bins_fit_categories(self) -> Self:
        if MISSING_CATEGORY in self.categories or len(set(self.categories)) != len(self.categories):
            raise ValueError(f"{self.name}: categories must be distinct and not empty")
        expected = [as_label(each, MISSING_BIN) for each in self.categories]
        if [each.label for each in self.bins] != expected + [MISSING_BIN] * self.missing:
            raise ValueError(
                f"{self.name}: the labels of the bins do not follow the categories; train the model again"
            )
        return self


class DatetimeFeature(Frozen):
    """A date and time, served as a string in ISO 8601. The model gets numbers that are made of it.

    Later moments than those of training are the rule, so it has no range and no bins by value.
    """

    type: Literal["datetime"] = "datetime"
    name: str
    unit: None = None
    description: str | None = None
    parts: tuple[Part, ...] = Field(default=PARTS, min_length=1)
    timezone: str = "UTC"
    """In which parts are read, and texts without an offset."""
    earliest: str
    """The first moment in training, in ISO 8601, as the next two."""
    latest: str
    typical: str
    """The training median."""
    step: float = Field(gt=0)
    """The resolution of the training rows in seconds: 86400 of dates, 1 of whole seconds."""
    missing: bool
    bins: tuple[Bin, ...]
    """One for all moments, then one named "missing" if the feature may be missing."""

    @property
    def span(self) -> str:
        """From the earliest to the latest moment, as dates if all times are midnight."""
        digits = 10 if self.step >= DAY_SECONDS else None
        return f"{self.earliest[:digits]} to {self.latest[:digits]}"

    def grid(self, fraction: int = 1) -> tuple[datetime, timedelta, int]:
        """The earliest moment, the step or a fraction of it, and how many of these there are up to the latest."""
        first, last = (clock(self.timezone).read(each) for each in (self.earliest, self.latest))
        step = max(timedelta.resolution, timedelta(seconds=self.step) / fraction)
        return first, step, (last - first) // step

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        clock(value)
        return value

    @model_validator(mode="after")
    def _moments_and_bins(self) -> Self:
        for each in (self.earliest, self.latest, self.typical):
            clock(self.timezone).read(each)
        if len(set(self.parts)) != len(self.parts):
            raise ValueError(f"{self.name}: the parts must be distinct")
        if [each.label for each in self.bins[1:]] != [MISSING_BIN] * self.missing or not self.bins:
            raise ValueError(
                f"{self.name}: there must be one bin, and one of missing values if it may be missing"
            )
        return self


Feature = Annotated[NumberFeature | CategoryFeature | DatetimeFeature, Field(discriminator="type")]


def columns_of(feature: Feature) -> tuple[str, ...]:
    """The columns that a feature has in its tensor: a datetime has one for each part, such as `sold.year`."""
    return part_columns(feature.name, feature.parts) if feature.type == "datetime" else (feature.name,)


def part_columns(name: str, parts: Sequence[Part]) -> tuple[str, ...]:
    return tuple(f"{name}.{part}" for part in parts)


@dataclass(frozen=True)
class Layout:
    """The columns of the tensors."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, features: Sequence[Feature]) -> Layout:
        return cls(
            numbers=tuple(name for each in features if each.type != "category" for name in columns_of(each)),
            categories=tuple(each.name for each in features if each.type == "category"),
        )

    def places(self, feature: Feature) -> slice:
        """Which columns of its tensor a feature has."""
        names = self.categories if feature.type == "category" else self.numbers
        columns = columns_of(feature)
        first = names.index(columns[0])
        return slice(first, first + len(columns))


class Score(Frozen):
    """A figure and, if it was bootstrapped, its interval."""

    value: float
    low: float | None = None
    high: float | None = None


class ModelFile(Frozen):
    sha256: str
    bytes: int
    opset: int


class DataOrigin(Frozen):
    source: str
    sha256: str
    """Digest of the raw data file as fetched."""
    train_rows: int
    test_rows: int


class Interval(Frozen):
    """The prediction interval of a regression: the value, plus and minus the margin."""

    level: float = Field(gt=0, lt=1)
    """The share of the true values that it is made to hold."""
    margin: float = Field(ge=0)
    coverage: Score
    """The share of the true values that it holds on the test split."""


class Decision(Frozen):
    """How the class of a classification follows from its probabilities, if it is not the most probable one.

    The model file contains it; it is here for people.
    """

    positive: str | None = None
    threshold: float | None = None
    """Of two classes: the positive one is answered from this probability on."""
    cost: tuple[tuple[float, ...], ...] | None = None
    """What it costs to answer a class (column) where another is right (row). Of more than two classes, the answer has the
    lowest expected cost."""


class Explanation(Frozen):
    """How `explain.onnx` explains a prediction: `base` and the contributions of all features add up to the model's score."""

    file: ModelFile
    unit: str | None
    """Of base and contributions: log-odds or probability, or the unit of a regression's target."""
    positive: str | None = None
    """Of two classes, the one whose score is explained. Of more classes, it is the predicted one."""
    base: tuple[float, ...] = Field(min_length=1)
    """The mean score over the training rows: one for each class if there are more than two."""


class Partitioned(Frozen):
    """How the workers of a cluster fitted a model together, each on a part of the rows."""

    engine: Literal["dask"]
    partitions: int = Field(ge=1)


class Approximated(Frozen):
    """How a model takes the place of one that cannot be fitted to so many rows."""

    method: Literal["nystroem"]
    components: int = Field(ge=1)
    """Training rows with which a kernel machine compares a row."""


class Example(Frozen):
    """A row of the test split, which the page shows as an example."""

    values: dict[str, float | str | None]
    label: str | float
    """The true class or value."""


class Manifest(Frozen):
    """`model.json`."""

    schema_version: Literal[1] = 1
    digest: str = ""
    name: str
    version: str = ""
    """The first twelve hexadecimal digits of the digest."""
    algorithm: str
    target: str
    classes: tuple[str, ...]
    """In the order of the model's probability columns; empty for a regression."""
    class_shares: tuple[float, ...]
    """Shares of the classes in training, in the same order."""
    value: NumberFeature | None = None
    """The target of a regression, described as the features are."""
    interval: Interval | None = None
    """Of a regression."""
    predicted: tuple[float, ...] = ()
    """Shares of a regression's cross-validated predictions in the bins of `value`. Predictions vary less than the values, so
    these and not the values' own shares show whether they drift."""
    decision: Decision | None = None
    explanation: Explanation | None = None
    """None if predictions are not explained."""
    out_of_range: Literal["reject", "accept"]
    cells: Cells = PLAIN
    """How the cells of the training data were read; a request may use the same words for a missing value."""
    features: tuple[Feature, ...] = Field(min_length=1)
    """In display order; `Layout` derives the tensors' layout from it."""
    metrics: dict[str, dict[str, Score]]
    """Split (cv, train, test), then metric."""
    data: DataOrigin
    model: ModelFile
    examples: tuple[Example, ...] = ()
    partitioned: Partitioned | None = Field(default=None, exclude_if=lambda value: value is None)
    """None if one process fitted the model."""
    approximated: Approximated | None = Field(default=None, exclude_if=lambda value: value is None)
    """None if the model is exactly what its algorithm is called."""

    @model_validator(mode="after")
    def _target_is_a_class_or_a_number(self) -> Self:
        if len(self.classes) != len(self.class_shares):
            raise ValueError("class_shares must have one share per class")
        if self.value is None and len(self.classes) < 2:
            raise ValueError("there must be two classes or more, or a value")
        if self.value is not None and (self.classes or self.interval is None):
            raise ValueError("a value has an interval and no classes")
        if self.predicted and (self.value is None or len(self.predicted) != len(self.value.edges) + 1):
            raise ValueError("predicted must have one share per bin of the value")
        return self

    @model_validator(mode="after")
    def _explanation_fits(self) -> Self:
        if self.explanation is not None:
            bases = len(self.classes) if len(self.classes) > 2 else 1
            if len(self.explanation.base) != bases:
                raise ValueError(f"the explanation must have {bases} base")
            if (self.explanation.positive in self.classes) != (len(self.classes) == 2):
                raise ValueError("the explanation of two classes, and of no others, names the positive one")
        return self

    @model_validator(mode="after")
    def _names_are_labels(self) -> Self:
        """Prometheus ignores empty labels, and merges series with equal labels."""
        columns = [name for each in self.features for name in columns_of(each)]
        for what, names in (
            ("classes", self.classes),
            ("features", [each.name for each in self.features]),
            ("columns", columns),
        ):
            if "" in names or len(set(names)) != len(names):
                raise ValueError(f"the names of the {what} must be distinct and not empty")
        return self

    @property
    def task(self) -> Task:
        return "classification" if self.value is None else "regression"

    def computed_digest(self) -> str:
        """`sha256:…` over the manifest without its own digest and version; it includes the model's sha256."""
        content = self.model_dump(mode="json", exclude={"digest", "version"})
        for name, default in _NEWER.items():
            if getattr(self, name) == default:
                content.pop(name, None)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        return "sha256:" + hashlib.sha256(canonical).hexdigest()

    def sealed(self) -> Manifest:
        """A copy with digest and version filled in."""
        digest = self.computed_digest()
        return self.model_copy(update={"digest": digest, "version": version_of(digest)})


_NEWER: dict[str, Any] = {
    "cells": PLAIN,
    "value": None,
    "interval": None,
    "predicted": (),
    "decision": None,
    "explanation": None,
    "partitioned": None,
    "approximated": None,
}
"""Fields that older bundles lack, with the value that means so: their digests are as before."""


class Bundle(Frozen):
    """A verified bundle in memory."""

    manifest: Manifest
    model: bytes
    explanation: bytes | None = None


def as_label(text: str, reserved: str) -> str:
    """A label value that differs from a reserved word: the word itself is quoted.

    If the text is the word in quotes, it is quoted again, so that two texts never have the same label.
    """
    return f"'{text}'" if text.strip("'") == reserved else text


def version_of(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_bundle(directory: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: it is missing or invalid, has an unknown schema version, or a digest differs.
    """
    manifest_bytes = _read(directory, MANIFEST_FILE)
    model = _read(directory, MODEL_FILE)
    try:
        document = json.loads(manifest_bytes)
    except ValueError as error:
        raise BundleError(f"{directory / MANIFEST_FILE} is not JSON: {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{directory / MANIFEST_FILE} has schema version {version!r} and this service reads "
            f"{SCHEMA_VERSION}: run the service of the same release, or `make repro` to build the bundle again"
        )
    try:
        manifest = Manifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise BundleError(f"{directory / MANIFEST_FILE}: {where}: {first['msg']}") from None
    explanation = _read(directory, EXPLANATION_FILE) if manifest.explanation else None
    bundle = Bundle(manifest=manifest, model=model, explanation=explanation)
    _verify(directory, bundle)
    return bundle


def write_bundle(bundle: Bundle, directory: Path) -> None:
    """Write a bundle's files into a directory that exists."""
    (directory / MODEL_FILE).write_bytes(bundle.model)
    if bundle.explanation is not None:
        (directory / EXPLANATION_FILE).write_bytes(bundle.explanation)
    (directory / MANIFEST_FILE).write_text(bundle.manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise BundleError(
            f"no model bundle: {directory / name}: {error.strerror or error}; run `make repro` to build one, "
            "or set ESPALIER_MODEL_DIR"
        ) from None


def _verify(directory: Path, bundle: Bundle) -> None:
    manifest = bundle.manifest
    files = [(MODEL_FILE, bundle.model, manifest.model)]
    if manifest.explanation is not None and bundle.explanation is not None:
        files.append((EXPLANATION_FILE, bundle.explanation, manifest.explanation.file))
    for name, content, described in files:
        actual = sha256(content)
        if actual != described.sha256:
            raise BundleError(
                f"{directory / name} has digest {actual[:12]}… and {MANIFEST_FILE} expects "
                f"{described.sha256[:12]}…: the files are not from one bundle; fetch or build it again"
            )
    computed = manifest.computed_digest()
    if manifest.digest != computed or manifest.version != version_of(computed):
        raise BundleError(
            f"{directory / MANIFEST_FILE} does not match its own digest "
            f"({version_of(manifest.digest)} is written, {version_of(computed)} is computed): it was edited"
        )
