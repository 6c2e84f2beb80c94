"""The dvc.yaml of each model: the repository's, with the path to the code, the plots of the model's task and its own code.

DVC has no conditions, so the plots of the stage `train` are written for each model, and so is what the model's own functions
consist of, on which the stage `settings` depends. Nothing else differs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
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
_OWN = re.compile(
    r"^(      - params\.yaml\n)(?:      - .*\n)*(    params:\n.*packages\.yaml:\n {10}\[)[^\]]*\]$",
    re.MULTILINE,
)
"""The end of what the stage `settings` depends on."""
_PACKAGES = ("pydantic", "ruamel-yaml", "tzdata")
"""That this stage imports itself."""


def render(
    text: str, task: str, places: Iterable[str] = (), packages: Iterable[str] = (), *, further: bool = False
) -> str:
    """The dvc.yaml of a model with this task.

    Args:
        text: of a dvc.yaml.
        task: of the model.
        places: files and folders of the model's own code, beside params.yaml.
        packages: that its own functions consist of.
        further: whether the text is the repository's, and the model is in a folder of models/.
    """
    text = _CODE.sub(r"\1../../", text, count=1) if further else text
    lines = "".join(f"      - {each}\n" for each in places)
    names = textwrap.wrap(
        ", ".join([*_PACKAGES, *sorted({*packages} - {*_PACKAGES})]), 100, break_on_hyphens=False
    )
    listed = f"\n{' ' * 11}".join(names)
    text = _OWN.sub(lambda found: f"{found[1]}{lines}{found[2]}{listed}]", text, count=1)
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
