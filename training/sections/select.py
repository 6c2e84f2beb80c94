"""The section `select`: how the champion is chosen, and which bounds it must keep."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from app.contract import Task
from training.base.section import Settings, Version
from training.sections.metrics import LOWER_IS_BETTER, Metric, check_metrics


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
