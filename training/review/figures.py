"""The plots of a review: scores before and now with their intervals, and what the champion confuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.explore import stage as explore
from training.review.model import Algorithm, Confusion, Review

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOW, BEFORE = explore.PALETTE[0], "#999999"
ROWS = 30
"""Algorithms in one plot."""
CLASSES = 20
"""Above, the cells of a confusion matrix hold no numbers that can be read."""


def draw(review: Review) -> dict[str, bytes]:
    """PNG files by name; the same review gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context(explore.style()):
        found = {"scores.png": _scores(review), "confusion.png": _confusions(review)}
        return {name: explore.png(figure) for name, figure in found.items() if figure is not None}


def _scores(review: Review) -> Figure | None:
    shown = [each for each in review.algorithms if each.after][:ROWS]
    if not shown:
        return None
    height = 1.55 + 0.42 * len(shown)
    figure = explore.new_figure(8.2, height)
    score = shown[0].after.score if shown[0].after else ""
    explore.heading(figure, f"{score}: cross-validated, and on the test split")
    explore.subheading(figure, "grey: before. Lines: standard deviation over folds; bootstrap interval")
    cv = explore.place(figure, 1.75, 0.45, 2.95, height - 1.4)
    test = explore.place(figure, 5.05, 0.45, 2.95, height - 1.4)
    for row, each in enumerate(shown):
        sides: list[tuple[Algorithm | None, float, str]] = [(each.after, -0.12, NOW)]
        if not review.score_changed and each.before != each.after:
            sides.append((each.before, 0.16, BEFORE))
        for figures, offset, colour in sides:
            if figures is None:
                continue
            y = row + offset
            cv.plot(
                [figures.cv - figures.cv_std, figures.cv + figures.cv_std],
                [y, y],
                color=colour,
                linewidth=1.6,
            )
            cv.plot([figures.cv], [y], "o", color=colour, markersize=5)
            test.plot([figures.test_low, figures.test_high], [y, y], color=colour, linewidth=1.6)
            test.plot([figures.test], [y], "o", color=colour, markersize=5)
    for axes, title in ((cv, "cross-validated"), (test, "test split")):
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_yticks(range(len(shown)))
        axes.set_yticklabels([explore.shorten(each.name, 24) for each in shown] if axes is cv else [])
        axes.set_title(title, loc="left")
        axes.grid(axis="x", color=explore.FAINT, linewidth=0.6)
    return figure


def _confusions(review: Review) -> Figure | None:
    sides = [
        (title, state.confusion)
        for title, state in (("before", review.before), ("this change", review.after))
        if state.confusion is not None
    ]
    if review.after.confusion is None or len(review.after.confusion.classes) > CLASSES:
        return None
    sides = [each for each in sides if len(each[1].classes) <= CLASSES]
    width = 1.5 + 0.52 * max(len(each.classes) for _, each in sides)
    figure = explore.new_figure(max(4.6, 0.2 + width * len(sides)), width + 0.3)
    explore.heading(figure, "What the champion confuses on the test split")
    for position, (title, confusion) in enumerate(sides):
        _matrix(figure, 1.3 + position * width, width, title, confusion)
    return figure


def _matrix(figure: Figure, left: float, width: float, title: str, confusion: Confusion) -> None:
    side = width - 1.5
    axes = explore.place(figure, left, 1.0, side, side)
    count = len(confusion.classes)
    largest = max((max(row, default=0) for row in confusion.counts), default=0) or 1
    axes.imshow(confusion.counts, cmap="Blues", vmin=0, vmax=largest)
    for row, counts in enumerate(confusion.counts):
        for column, value in enumerate(counts):
            ink = "white" if value > largest / 2 else explore.INK
            axes.text(column, row, f"{value}", ha="center", va="center", color=ink, fontsize=8)
    names = [explore.shorten(each, 14) for each in confusion.classes]
    axes.set_xticks(range(count), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    axes.set_title(title, loc="left")
