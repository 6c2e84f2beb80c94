"""The section `split`: what keeps training and test apart."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from training.base.section import Settings, Text


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
