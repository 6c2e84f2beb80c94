"""The section `train`: which algorithms are fitted, with which parameters and features, and what is searched."""

from __future__ import annotations

import keyword
import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from training.base.section import NAME, Settings


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


NATIVE = ("catboost", "hist_gradient_boosting", "lightgbm", "xgboost")
"""The algorithms that split over sets of categories."""
DISTRIBUTED = ("lightgbm", "xgboost")
"""The algorithms that several machines can fit together."""
OWN_KEYS = ("search", "categories", "smooth", "estimator", "features", "partitions")
"""The keys of a block that are no parameters of an estimator."""


def _is_function(value: str) -> str:
    module, _, function = value.partition(":")
    if not all(
        each.isidentifier() and not keyword.iskeyword(each) for each in (*module.split("."), function)
    ):
        raise ValueError(f"a function is written as package.module:function, and {value!r} is not")
    return value


Function = Annotated[str, AfterValidator(_is_function)]
"""Names a function of the model's own code or of an installed package."""


class AlgorithmSettings(Settings):
    """One block under `train.algorithms`: everything but the other fields is a parameter of the estimator."""

    parameters: dict[str, Any]
    search: SearchSettings | None = None
    categories: Literal["one_hot", "native", "target"] = "one_hot"
    """What the estimator sees of a category: a column for each, its code, or the mean of the target."""
    smooth: float | Literal["auto"] = "auto"
    """How many rows' weight the mean of all rows has in the mean of a category; auto follows the variances."""
    estimator: Function | None = None
    """Returns the estimator, if it is not one of the project's."""
    features: Function | None = None
    """Returns a transformer of the numbers."""
    partitions: int | None = Field(default=None, ge=1)
    """In how many parts of the rows the workers of `engine: dask` fit the estimator together; None for one process."""

    @model_validator(mode="before")
    @classmethod
    def _split_block(cls, block: Any) -> Any:
        if block is None:
            block = {}
        if isinstance(block, dict):
            own = {key: block[key] for key in OWN_KEYS if key in block}
            return {"parameters": {key: block[key] for key in block if key not in own}, **own}
        return block

    @field_validator("smooth", mode="before")
    @classmethod
    def _smooth_is_a_weight(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != "auto" and not (number and 0 <= value < math.inf):
            raise ValueError(f"{value!r} is neither auto nor a number from 0 on")
        return value

    @property
    def described(self) -> dict[str, Any]:
        """The keys of the block without its search, as far as they are given."""
        own: dict[str, Any] = {
            key: getattr(self, key)
            for key in ("categories", "smooth", "partitions")
            if key in self.model_fields_set
        }
        return {**own, **self.parameters}

    @model_validator(mode="after")
    def _keys_fit_the_categories(self) -> Self:
        if "smooth" in self.model_fields_set and self.categories != "target":
            raise ValueError(f"smooth is for categories: target, and they are {self.categories}: remove it")
        if self.search and (
            searched := sorted({"categories", "smooth", "partitions"} & self.search.space.keys())
        ):
            raise ValueError(
                f"search.space.{searched[0]}: {searched[0]} cannot be searched: write it in the block, beside search"
            )
        return self

    @property
    def functions(self) -> dict[str, str]:
        """The model's own functions by key."""
        named = {"estimator": self.estimator, "features": self.features}
        return {key: function for key, function in named.items() if function}

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


def _check_native(name: str, block: AlgorithmSettings) -> None:
    if name not in NATIVE:
        raise ValueError(f"{name}: categories: native is for {', '.join(NATIVE)}: use target or one_hot")
    _check_not_exact("categories: native", name, block)


def _check_not_exact(what: str, name: str, block: AlgorithmSettings) -> None:
    searched = block.search.space.get("tree_method") if block.search else None
    methods = searched if isinstance(searched, list) else [block.parameters.get("tree_method")]
    if name == "xgboost" and "exact" in methods:
        raise ValueError(f"{name}: {what} needs tree_method: hist, and it is exact")


def _check_partitions(name: str, block: AlgorithmSettings) -> None:
    if name not in DISTRIBUTED or block.estimator:
        raise ValueError(f"{name}: partitions is for {' and '.join(DISTRIBUTED)}: remove it")
    if block.categories == "target":
        raise ValueError(
            f"{name}: partitions cannot go with categories: target, whose means are of all rows: use native or one_hot"
        )
    _check_not_exact("partitions", name, block)


class AlgorithmsSettings(Settings):
    engine: Literal["local", "dask"] = "local"
    """What runs folds, candidates and importance. No stage depends on it, because both give the same bytes."""
    algorithms: dict[str, AlgorithmSettings] = Field(min_length=1)
    features: Function | None = None
    """Of every block that names none of its own."""

    @model_validator(mode="after")
    def _partitions_have_an_engine(self) -> Self:
        for name, block in self.algorithms.items():
            if block.partitions is not None and self.engine == "local":
                raise ValueError(f"algorithms.{name}.partitions needs `engine: dask` under train")
        return self

    @field_validator("algorithms")
    @classmethod
    def _of_these_algorithms(cls, value: dict[str, AlgorithmSettings]) -> dict[str, AlgorithmSettings]:
        for name, block in value.items():
            if block.categories == "native":
                _check_native(name, block)
            if block.partitions is not None:
                _check_partitions(name, block)
        return value

    @field_validator("algorithms")
    @classmethod
    def _names(cls, value: dict[str, AlgorithmSettings]) -> dict[str, AlgorithmSettings]:
        for name in value:
            if not NAME.match(name):
                raise ValueError(f"{name!r} becomes a folder: use lower-case letters, digits and underscores")
        return value
