"""Estimators' errors and parameters in words that fit into one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from training.custom import functions


def reason(error: Exception) -> str:
    """The message of an estimator or converter in one short line, with the place if the model's own code raised it."""
    text = re.split(r"\n\n|Stack trace:|\nIt usually means", str(error))[0]
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ", "", text)  # where in XGBoost's sources
    text = re.sub(r"^\S+\.(?:cpp|h):\d+: ", "", text)  # where in CatBoost's
    # The calibration checks the parameters of the classifier within under its own name.
    text = re.sub(r"(The '\w+' parameter) of \w+", r"\1", text)
    return (" ".join(text.split())[:400] or type(error).__name__) + functions.place(error)


def described(parameters: Mapping[str, Any]) -> str:
    """Parameters as params.yaml would list them, for messages."""
    words = {"None": "null", "True": "true", "False": "false"}
    return ", ".join(f"{key}: {words.get(repr(value), repr(value))}" for key, value in parameters.items())
