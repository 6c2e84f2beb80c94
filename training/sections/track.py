"""The section `track`: the project at Weights & Biases."""

from __future__ import annotations

from pydantic import Field

from training.base.section import Settings


class TrackSettings(Settings):
    project: str = Field(min_length=1)
    entity: str | None = None
    timeout_seconds: float = Field(default=300, gt=0)
