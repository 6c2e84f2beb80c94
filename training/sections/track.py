"""The section `track`: which trackers mirror the runs, and the project there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from training.base.section import Settings

Tracker = Literal["wandb", "mlflow"]


def _as_list(value: Any) -> Any:
    """Accept one name, and null as no name."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


class TrackSettings(Settings):
    to: Annotated[list[Tracker], BeforeValidator(_as_list)] = ["wandb"]
    project: str = Field(min_length=1)
    entity: str | None = None
    """Of Weights & Biases."""
    timeout_seconds: float = Field(default=300, gt=0)
    """Of each tracker."""
