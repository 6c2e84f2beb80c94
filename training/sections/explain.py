"""The section `explain`: whether predictions can be explained."""

from __future__ import annotations

from typing import Literal

Explain = Literal["none", "shap"]
"""shap: what each feature contributes to a prediction, for clients that ask. The champion is a model that can tell."""
