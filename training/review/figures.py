"""The plots of a review: scores before and now with their intervals, and the champion's confusion matrices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from training.explore import canvas as explore
from training.review.model import Review

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOW, BEFORE = explore.COLOURS[0], "#999999"
ROWS = 30
"""Algorithms in one plot."""
CLASSES = 20
"""Above, the numbers in a confusion matrix are too small to read."""


def draw(review: Review) -> dict[str, bytes]:
    """PNG files by name; the same review gives the same bytes."""
    found = {}
    if any(each.after for each in review.algorithms):
        found["scores.png"] = explore.png(partial(_scores, review))
    if review.after.confusion is not None and len(review.after.confusion.classes) <= CLASSES:
        found["confusion.png"] = explore.png(partial(_confusions, review))
    return found


def _scores(review: Review) -> Figure:
    shown = [each for each in review.algorithms if each.after][:ROWS]
    figure = explore.blank(8.2, 0.7 + 0.42 * len(shown))
    cv, test = figure.subplots(1, 2, sharey=True)
    for row, each in enumerate(shown):
        sides = [(each.after, row - 0.12, NOW)]
        if not review.score_changed and each.before != each.after:
            sides.append((each.before, row + 0.16, BEFORE))
        for figures, y, colour in sides:
            if figures is None:
                continue
            test_errors = [[figures.test - figures.test_low], [figures.test_high - figures.test]]
            cv.errorbar(figures.cv, y, xerr=figures.cv_std, fmt="o", color=colour, markersize=5)
            test.errorbar(figures.test, y, xerr=test_errors, fmt="o", color=colour, markersize=5)
    for axes, title in ((cv, "cross-validated"), (test, "test split")):
        axes.set_title(title, loc="left")
        axes.grid(axis="x", color="#dddddd")
    cv.set_ylim(len(shown) - 0.5, -0.5)
    cv.set_yticks(range(len(shown)), [explore.shorten(each.name) for each in shown])
    score = next(each.after.score for each in shown if each.after)
    explore.heading(
        figure,
        f"{score}: cross-validated, and on the test split",
        "grey: before. Lines: standard deviation over folds; bootstrap interval",
    )
    return explore.arrange(figure)


def _confusions(review: Review) -> Figure:
    sides = {
        title: state.confusion
        for title, state in (("before", review.before), ("this change", review.after))
        if state.confusion is not None and len(state.confusion.classes) <= CLASSES
    }
    side = 1.3 + 0.45 * max(len(each.classes) for each in sides.values())
    figure = explore.blank(side * len(sides), side)
    grid = figure.subplots(1, len(sides), squeeze=False)
    for axes, (title, confusion) in zip(grid.flat, sides.items(), strict=True):
        names = [explore.shorten(each, 14) for each in confusion.classes]
        explore.heatmap(axes, confusion.counts, names, ".0f", size=8.5, cmap="Blues", vmin=0)
        axes.set_title(title, loc="left")
    explore.heading(figure, "What the champion confuses on the test split")
    return explore.arrange(figure)
