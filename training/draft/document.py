"""The text of params.yaml: its sections, and what in them depends on the task."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from app.contract import CategoryFeature, Task
from training.base.documents import parse_yaml
from training.data.dataset import Profile
from training.sections.metrics import METRICS
from training.sections.split import SplitSettings
from training.train.algorithms import FACTORIES

_SECTION = re.compile(r"^([A-Za-z_'\"][^\n:]*):(?=\s|$)", re.MULTILINE)
_TRAILING = re.compile(r"(?:^(?:[ \t]*|#[^\n]*)(?:\n|\Z))*\Z", re.MULTILINE)


DRAFTED: dict[Task, tuple[str, ...]] = {
    "classification": ("logistic_regression", "decision_tree", "random_forest", "svm", "xgboost"),
    "regression": ("ridge", "decision_tree", "random_forest", "svm", "xgboost"),
}
"""The algorithms of a draft: of different kinds, and each of them installed."""
MOST_ROWS: dict[Task, dict[str, int]] = {"classification": {"svm": 5000}, "regression": {"svm": 10_000}}
"""Training rows up to which a draft has an algorithm, so that its default search takes minutes. Classes are calibrated, too: six
times as many fits."""
BOOSTED = "{tree_method: hist, search: {method: grid, space: {n_estimators: [60, 200], max_depth: [3, 6]}}}"
BOOSTED_LARGE = "{tree_method: hist, n_estimators: 200, max_depth: 6}"
"""XGBoost's block, and that above MOST_SEARCHED training rows: there the larger trees were the better ones of public data
sets, and the search would take long."""
MOST_SEARCHED = 5000


MANY_CATEGORIES = 20
"""Of a feature, from which on a forest of a draft sees means of the target: on eleven public data sets one-hot columns were
worse by 0.03 on average, and better by 0.008 at most. Of the other algorithms neither was better on most sets."""


def widest(profile: Profile) -> int:
    """How many categories the feature with the most of them has."""
    return max(
        (len(each.categories) for each in profile.features if isinstance(each, CategoryFeature)), default=0
    )


def algorithms(task: Task, rows: int = 0, categories: int = 0) -> str:
    """The section train, with a choice of algorithms that take so many training rows and categories of a feature."""
    blocks = {"xgboost": f" {BOOSTED if rows <= MOST_SEARCHED else BOOSTED_LARGE}"}
    if categories >= MANY_CATEGORIES:
        blocks["random_forest"] = " {categories: target}"
    lines = [
        f"    # {name}: left out, since its time grows with the square of the {rows:,} training rows"
        if rows > MOST_ROWS[task].get(name, rows)
        else f"    {name}:{blocks.get(name, '')}"
        for name in DRAFTED[task]
    ]
    return "\n".join(
        [
            "train:",
            "  # The algorithms to compare, each with the parameters that differ from the defaults.",
            "  algorithms:",
            *lines,
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


def remove(document: str, section: str) -> str:
    """The document without a section, if it has it."""
    return document.replace(_blocks(document).get(section, ""), "", 1)


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
    parsed, changes, task = parse_yaml(document) or {}, [], profile.task
    sections = {name: each for name, each in parsed.items() if isinstance(each, dict)}
    evaluate, split = sections.get("evaluate", {}), sections.get("split", {})
    if (score := evaluate.get("score")) and score not in METRICS[task]:
        document = _without(document, "evaluate", "score")
        changes.append(f"evaluate.score: removed, because a {task} has no {score}")
    if absent := _absent(evaluate.get("slices") or (), profile):
        document = _without(document, "evaluate", "slices")
        changes.append(f"evaluate.slices: removed, because the source has no column {absent}")
    if absent := _absent([split.get("time"), split.get("group")], profile):
        document = _without(document, "split", "by|time|group")
        changes.append(f"split.by: removed, because the source has no column {absent}")
    before = sections.get("data", {}).get("source"), sections.get("schema", {}).get("target")
    if "decision" in sections and (task == "regression" or before != (profile.origin.source, profile.target)):
        document = remove(document, "decision")
        changes.append("decision: removed, because it is about other classes")
    blocks = sections.get("train", {}).get("algorithms", {})
    if any(name not in FACTORIES[task] and "estimator" not in (blocks[name] or {}) for name in blocks):
        document = place(algorithms(task, profile.train_rows, widest(profile)), document)
        changes.append(f"train: replaced by the algorithms of a {task}")
    return document, changes


def _absent(columns: Iterable[Any], profile: Profile) -> str:
    """The first of some columns that the source does not have."""
    return next((str(each) for each in columns if each and str(each) not in profile.origin.columns), "")


def _without(document: str, section: str, keys: str) -> str:
    """The document without some keys of a section."""
    block = _blocks(document)[section]
    lines = re.compile(rf"^( +)(?:{keys}):.*\n(?:\1(?: +|- ).*\n)*", re.MULTILINE)
    return document.replace(block, lines.sub("", block), 1)


def _blocks(document: str) -> dict[str, str]:
    """The top-level sections by name; the text before the first one has the name ""."""
    starts = [(found.start(), found[1].strip("'\"")) for found in _SECTION.finditer(document)]
    ends = [*(start for start, _ in starts[1:]), len(document)]
    head = document[: starts[0][0]] if starts else document
    return {"": head, **{name: document[start:end] for (start, name), end in zip(starts, ends, strict=False)}}
