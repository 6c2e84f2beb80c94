"""The section `card`: the parts of the model card that only a person can write."""

from __future__ import annotations

from pydantic import Field

from training.base.section import Settings

TO_BE_WRITTEN = "TO BE WRITTEN"
"""The start of each sentence of a drafted card, until somebody replaces it."""


class CardSettings(Settings):
    """The parts of the model card that only a person can write."""

    intended_use: str = Field(min_length=1)
    limits: tuple[str, ...] = ()
