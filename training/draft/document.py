"""The text of params.yaml: its sections, and what in them depends on the task."""

from __future__ import annotations

import re

from app.contract import Task
from training.base import config
from training.base.config import METRICS, SplitSettings
from training.data.dataset import Profile
from training.train.algorithms import FACTORIES, create

_SECTION = re.compile(r"^([A-Za-z_'\"][^\n:]*):(?=\s|$)", re.MULTILINE)
_TRAILING = re.compile(r"(?:^(?:[ \t]*|#[^\n]*)(?:\n|\Z))*\Z", re.MULTILINE)


DRAFTED: dict[Task, tuple[str, ...]] = {
    "classification": ("logistic_regression", "decision_tree", "random_forest", "svm", "xgboost"),
    "regression": ("ridge", "decision_tree", "random_forest", "svm", "xgboost"),
}
"""The algorithms of a draft: of different kinds, and each of them installed."""


def algorithms(task: Task, rows: int = 0) -> str:
    """The section train, with a choice of algorithms that take so many training rows and no parameters."""
    names = [each for each in DRAFTED[task] if not (most := create(each, task).most_rows) or rows <= most]
    return "\n".join(
        [
            "train:",
            "  # The algorithms to compare, each with the parameters that differ from the defaults.",
            "  algorithms:",
            *(f"    {name}:" for name in names),
            "",
        ]
    )


def place(drafted: str, document: str) -> str:
    """Replace the sections of a document that have the same names; append the others."""
    blocks = _blocks(document)
    for name, block in _blocks(drafted).items():
        if name:
            # Comments and blank lines at the end of a section belong to the next one.
            rest = _TRAILING.search(blocks[name])[0] if name in blocks else ""  # type: ignore[index]
            before = "" if name in blocks else "\n"
            blocks[name] = before + block.rstrip() + "\n" + rest
    return "".join(blocks.values())


def columns_of(split: SplitSettings) -> tuple[str, ...]:
    """The columns that keep training and test apart."""
    return tuple(each for each in (split.time, split.group) if each is not None)


def fit(document: str, profile: Profile) -> tuple[str, list[str]]:
    """Replace what the drafted data cannot have outside the drafted sections.

    Args:
        document: the text of a params.yaml.
        profile: of the data.

    Returns:
        The document, and a sentence for each change.
    """
    parsed, changes, task = config.parse_yaml(document) or {}, [], profile.task
    score = (parsed.get("evaluate") or {}).get("score")
    if score and score not in METRICS[task]:
        document = _without(document, "evaluate", "score")
        changes.append(f"evaluate.score: removed, because a {task} has no {score}")
    split = parsed.get("split") or {}
    absent = [
        each
        for key in ("time", "group")
        if (each := split.get(key)) and str(each) not in profile.origin.columns
    ]
    if absent:
        document = _without(document, "split", "by|time|group")
        changes.append(f"split.by: removed, because the source has no column {absent[0]}")
    names = (parsed.get("train") or {}).get("algorithms") or {}
    if not set(names) <= set(FACTORIES[task]):
        document = place(algorithms(task, profile.train_rows), document)
        changes.append(f"train: replaced by the algorithms of a {task}, with their defaults")
    return document, changes


def _without(document: str, section: str, keys: str) -> str:
    """The document without some keys of a section that are on lines of their own."""
    block = _blocks(document)[section]
    return document.replace(block, re.sub(rf"^ +(?:{keys}):.*\n", "", block, flags=re.MULTILINE), 1)


def _blocks(document: str) -> dict[str, str]:
    """The top-level sections by name; the text before the first one has the name ""."""
    starts = [(found.start(), found[1].strip("'\"")) for found in _SECTION.finditer(document)]
    ends = [*(start for start, _ in starts[1:]), len(document)]
    head = document[: starts[0][0]] if starts else document
    return {"": head, **{name: document[start:end] for (start, name), end in zip(starts, ends, strict=False)}}
