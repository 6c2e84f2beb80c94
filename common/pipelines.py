"""The dvc.yaml of each model: the repository's, with the path to the code and the plots of the model's task.

DVC has no conditions, so the plots of the stage `train` are written for each model. Nothing else differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PIPELINE_FILE = Path("dvc.yaml")
TASK: Final = "classification"
"""Of a model that declares none."""

_IMPORTANCE = {"importance": ("importance", "feature", "Importance")}
PLOTS: Mapping[str, Mapping[str, tuple[str, str, str]]] = {
    "classification": {
        "confusion": ("predicted", "actual", "Confusion"),
        "roc": ("fpr", "tpr", "ROC"),
        "precision_recall": ("recall", "precision", "Precision"),
        "calibration": ("predicted", "observed", "Calibration"),
        **_IMPORTANCE,
    },
    "regression": {
        "predicted": ("predicted", "actual", "Predicted and actual"),
        "residuals": ("predicted", "residual", "Residuals"),
        **_IMPORTANCE,
    },
}
"""The columns for x and y, and the title, of each plot of a task; its template has the plot's name."""

_CODE = re.compile(r"^(  - code: )''$", re.MULTILINE)
_LIST = re.compile(r"^      plots:\n(?: {8}.*\n)+", re.MULTILINE)


def render(text: str, task: str, *, further: bool = False) -> str:
    """The dvc.yaml of a model with this task.

    Args:
        text: of a dvc.yaml.
        task: of the model.
        further: whether the text is the repository's, and the model is in a folder of models/.
    """
    text = _CODE.sub(r"\1../../", text, count=1) if further else text
    return _LIST.sub(lambda _: _plots(task), text, count=1)


def task_of(text: str) -> str | None:
    """The task whose plots a dvc.yaml lists; None if it lists others."""
    found = _LIST.search(text)
    return next((each for each in PLOTS if found and found[0] == _plots(each)), None)


def _plots(task: str) -> str:
    lines = ["      plots:"]
    for name, (x, y, title) in PLOTS[task].items():
        lines += [
            f"        - candidates/${{key}}/plots/{name}.csv:",
            f'            {{persist: true, template: {name}, x: {x}, y: {y}, title: "{title}: ${{key}}"}}',
        ]
    return "\n".join(lines) + "\n"
