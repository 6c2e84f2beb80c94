"""The section `decision`: how a class follows from the probabilities."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from training.base.section import Settings, Text


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
