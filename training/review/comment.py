"""The comment of a pull request: the verdict and its reasons first, details below in foldable sections.

The comment is always safe to post (`common.markdown`) and short enough: each part has a budget, and their sum is below
GitHub's limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from operator import attrgetter

from app.contract import Score
from common.markdown import block, bullets, code, details, prose, table
from training.production import comparison
from training.results.figures import TITLES, interval, shown, signed, spread
from training.review.model import Algorithm, Confusion, Contestant, Review
from training.sections.metrics import LOWER_IS_BETTER, Metric

MARKER = "<!-- espalier-review -->"
"""The first line, by which the comment is found and updated."""
LIMIT = 60_000
"""Bytes; the budgets below sum to less. GitHub accepts 65,536 characters, and the step that posts may add some lines."""
GATE_KEYS = "select.gate."

_LIST = 3_000
_DIFFERENCES = 9
_TABLE = 9_000
_SHORT_TABLE = 4_000
_SHOWN_CLASSES = 8
"""With more classes, a confusion matrix is wider than the page, so only the largest errors are listed."""
_BARS = 12
_NBSP = "\u00a0"
_PLAIN = re.compile(r"[A-Za-z0-9_]{1,40}\Z")


def render(review: Review) -> str:
    parts = [
        MARKER,
        f"### {headline(review)}",
        _reason(review),
        _figures(review),
        _warnings(review),
        _parameters(review),
        _algorithms(review),
        _production(review),
        _data(review),
        _confusion(review),
        _chart(review),
        _footer(review),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(review: Review) -> str:
    """The verdict in a line of Markdown."""
    before, after = review.before.champion, review.after.champion
    if review.outcome == "refused":
        return "❌ The gate fails: the champion is not good enough"
    if review.outcome == "broken":
        return "❌ The pipeline failed"
    if review.outcome == "worse":
        compared = review.production is not None and review.production.outcome == "compared"
        return (
            "❌ The gate fails: production's model is better"
            if compared
            else "❌ The gate fails: production's model cannot be compared with this one"
        )
    if review.outcome == "undecided":
        return "⚠️ The gate could not decide"
    if after is None:
        return "✅ The gate passes"
    if before is None:
        return f"✅ The gate passes: {code(after.algorithm)} is the first champion"
    if before.version == after.version:
        return f"✅ The gate passes: {code(after.algorithm)} stays champion, unchanged"
    if before.algorithm == after.algorithm:
        return f"✅ The gate passes: {code(after.algorithm)} stays champion, with a new model"
    return f"✅ The gate passes: {code(after.algorithm)} takes over from {code(before.algorithm)}"


def _reason(review: Review) -> str:
    """Why the verdict is what it is."""
    if review.outcome == "broken":
        return block(review.reason)
    result = review.production
    if result is not None and result.production is not None and result.missed:
        them = f"Against {code(result.production.called)} in production, on the same {result.rows:,} rows:"
        return "\n".join([them, "", *bullets(map(prose, result.missed), _LIST)])
    if review.reason:
        return prose(f"{review.reason.rstrip('.')}.")
    if result is None:
        return ""
    if result.production is None or not result.figures:
        return prose(f"Production: {result.verdict}.")
    differences = ", ".join(
        f"{code(each.metric)} {signed(each.difference.value)}"
        for each in [figure for figure in result.figures if figure.allowed is not None][:_DIFFERENCES]
    )
    return (
        f"Against {code(result.production.called)} in production, on the same "
        f"{result.rows:,} rows: {differences or 'no rule demands anything'}."
    )


def _figures(review: Review) -> str:
    """The champion before and after, with its headline figures."""
    before, after = review.before.champion, review.after.champion
    if after is None or (before is not None and before.version == after.version):
        return ""
    figures = {each.name: each for each in review.algorithms}
    old = figures[before.algorithm].before if before and before.algorithm in figures else None
    new = figures[after.algorithm].after if after.algorithm in figures else None
    rows = [
        [
            "champion",
            f"{code(before.algorithm)} {code(before.version)}" if before else "–",
            f"{code(after.algorithm)} {code(after.version)}",
            "",
        ]
    ]
    if new is not None:
        same = old is not None and not review.score_changed
        rows += [
            [
                f"cross-validated {code(new.score)}",
                _cv(old) if same else "–",
                _cv(new),
                _delta(old, new, attrgetter("cv")) if same else "",
            ],
            [
                f"test {code(new.score)}",
                _test(old) if same else "–",
                _test(new),
                _delta(old, new, attrgetter("test")) if same else "",
            ],
            [
                f"test {TITLES[new.second]} (less is better)",
                shown(old.second_test) if old and old.second == new.second else "–",
                shown(new.second_test),
                _delta(old, new, attrgetter("second_test")) if old and old.second == new.second else "",
            ],
            *_interval_rows(review),
        ]
    return table(["", "before", "this change", "Δ"], rows, _SHORT_TABLE, "lrrr")


def _interval_rows(review: Review) -> list[list[str]]:
    """The prediction interval of a regression: its margin, and how many rows of the test split it holds."""
    old, new = review.before.interval, review.after.interval
    if new is None:
        return []
    return [
        [
            f"{new.level:.0%} interval, ±",
            shown(old.margin) if old and old.level == new.level else "–",
            shown(new.margin),
            signed(new.margin - old.margin) if old and old.level == new.level else "",
        ],
        [
            "test rows in it",
            f"{old.coverage.value:.1%}" if old else "–",
            f"{new.coverage.value:.1%}",
            "",
        ],
    ]


def _warnings(review: Review) -> str:
    lines = []
    if any(each.name.startswith(GATE_KEYS) for each in review.parameters):
        lines.append("This change alters the rules of the gate itself: see `select.gate` below.")
    if review.test_split_changed:
        lines.append("The test split is another one: test figures before and after are of different rows.")
    if review.score_changed:
        lines.append("`evaluate.score` is another one: scores before and after do not compare.")
    lines += [prose(each) for each in (review.production.warnings if review.production else ())]
    lines += [prose(each) for each in review.notes]
    return (
        "\n".join(["> [!NOTE]", *(f"> {line}".rstrip() for line in bullets(lines, _LIST))]) if lines else ""
    )


def _parameters(review: Review) -> str:
    if not review.parameters:
        return "No parameter changed." if review.data else "Neither parameters nor data changed."
    count = len(review.parameters)
    rows = [[code(each.name), _value(each.before), _value(each.after)] for each in review.parameters]
    head = f"**{count} parameter{'s' if count > 1 else ''} changed**"
    body = table(["parameter", "before", "this change"], rows, _TABLE)
    if count <= 12:
        return f"{head}\n\n{body}"
    return details(head.replace("**", ""), body)


def _algorithms(review: Review) -> str:
    if not review.algorithms:
        return ""
    score = next((each.after.score for each in review.algorithms if each.after), None)
    rows = [_contestant(each, review) for each in review.algorithms]
    moved = [
        each
        for each in review.algorithms
        if each.rank_after and each.rank_before not in (each.rank_after, None)
    ]
    order = "order unchanged" if not moved else f"{len(moved)} changed places"
    if review.after.champion is None:
        order = "selection did not run"
    changed = sum(each.before != each.after for each in review.algorithms)
    summary = f"Algorithms: {changed} of {len(review.algorithms)} with other figures, {order}"
    title = code(score) if score else "score"
    second: Metric = next((each.after.second for each in review.algorithms if each.after), "log_loss")
    body = table(
        ["", "algorithm", f"cross-validated {title}", "Δ", f"test {title}", "Δ", TITLES[second], "Δ"],
        rows,
        _TABLE,
        "rlrrrrrr",
    )
    champion = review.after.champion
    if champion:
        body += f"\n\nChampion: {code(champion.algorithm)}, {prose(champion.rule)}."
    return details(
        summary,
        f"{body}\n\nΔ is the difference to before; ± is over the folds, intervals are bootstrapped.",
    )


def _contestant(each: Contestant, review: Review) -> list[str]:
    place = str(each.rank_after or "–")
    if each.rank_after and each.rank_before and each.rank_after != each.rank_before:
        place = f"{each.rank_before}{_NBSP}→{_NBSP}{each.rank_after}"
    old, new = each.before, each.after
    if new is None:
        return [place, f"{code(each.name)} (removed)", *[""] * 6]
    same = None if review.score_changed else old
    name = code(each.name) if old else f"{code(each.name)} (new)"
    return [
        place,
        name,
        _cv(new),
        _delta(same, new, attrgetter("cv")),
        _test(new),
        _delta(same, new, attrgetter("test")),
        shown(new.second_test),
        _delta(old, new, attrgetter("second_test")) if old and old.second == new.second else "",
    ]


def _production(review: Review) -> str:
    result = review.production
    if result is None or not result.figures or result.production is None:
        return ""
    rows = []
    for each in result.figures:
        if each.allowed is None:
            rule = ""
        else:
            sign = "+" if each.metric in LOWER_IS_BETTER else "-"
            rule = f"{'✅' if each.passes else '❌'} {sign}{each.allowed:g}"
        rows.append(
            [
                code(each.metric),
                shown(each.production.value),
                shown(each.candidate.value),
                comparison.signed(each.difference),
                rule,
            ]
        )
    them = f"{code(result.production.called)} of {code((result.production.commit or '')[:10])}"
    body = (
        f"{them}, which production runs, and this model on the same {result.rows:,} rows of the test "
        f"split; {result.confidence:.0%} intervals of the paired difference. {prose(comparison.certainty(result))}\n\n"
        + table(
            ["on test", "production", "this model", "difference", "allowed"],
            rows,
            _SHORT_TABLE,
            "lrrrr",
        )
    )
    summary = "Against production: " + ("worse than allowed" if result.missed else "within what is allowed")
    return details(summary, body)


def _data(review: Review) -> str:
    if not review.data:
        return "The data did not change." if review.parameters else ""
    rows = [[code(each.name), _value(each.before), _value(each.after)] for each in review.data]
    return details(f"Data: {len(rows)} differences", table(["", "before", "this change"], rows, _TABLE))


def _confusion(review: Review) -> str:
    after = review.after.confusion
    if after is None:
        return ""
    before = review.before.confusion
    if before is not None and before.classes != after.classes:
        before = None
    wrong = _wrong(after)
    total = sum(map(sum, after.counts))
    summary = f"Confusion: {wrong:,} of {total:,} test rows wrong"
    if before is not None:
        summary += f", {_wrong(before):,} of {sum(map(sum, before.counts)):,} before"
    if len(after.classes) > _SHOWN_CLASSES:
        return details(summary, _confused_pairs(after, before))
    head = ["actual ↓ predicted →", *(code(each, 30) for each in after.classes)]
    rows = []
    for row, name in enumerate(after.classes):
        cells = [
            _cell(count, before.counts[row][column] if before else count)
            for column, count in enumerate(after.counts[row])
        ]
        rows.append([code(name, 30), *cells])
    return details(summary, table(head, rows, _TABLE, "l" + "r" * len(after.classes)))


def _confused_pairs(after: Confusion, before: Confusion | None) -> str:
    """With many classes, the most frequent confusions, now or before."""
    pairs = []
    for row, actual in enumerate(after.classes):
        for column, predicted in enumerate(after.classes):
            now = after.counts[row][column]
            then = before.counts[row][column] if before else now
            if row != column and (now or then):
                pairs.append(
                    (-max(now, then), row, column, [code(actual, 60), code(predicted, 60), _cell(now, then)])
                )
    rows = [cells for *_, cells in sorted(pairs, key=lambda each: each[:3])]
    if not rows:
        return "No row is wrong."
    return table(["actual", "predicted", "rows"], rows[:40], _TABLE, "llr")


def _chart(review: Review) -> str:
    """A Mermaid chart, which supports only a few plain names."""
    shown = [each for each in review.algorithms if each.after and _PLAIN.match(each.name)][:_BARS]
    scores = {each.after.score for each in shown if each.after}
    if len(shown) < 2 or len(scores) != 1 or not all(_PLAIN.match(each) for each in scores):
        return ""
    now = [each.after.cv for each in shown if each.after]
    then = [each.before.cv for each in shown if each.before]
    (score,) = scores
    compared = len(then) == len(now) and then != now and not review.score_changed
    values = [*now, *(then if compared else ())]
    if not all(map(math.isfinite, values)):
        return ""
    low, high = _axis(values)
    lines = [
        "```mermaid",
        "xychart-beta",
        f'    title "Cross-validated {score}{": bars now, line before" if compared else ""}"',
        "    x-axis [" + ", ".join(f'"{each.name}"' for each in shown) + "]",
        f'    y-axis "{score}" {low:g} --> {high:g}',
        f"    bar [{', '.join(f'{each:.4f}' for each in now)}]",
    ]
    if compared:
        lines.append(f"    line [{', '.join(f'{each:.4f}' for each in then)}]")
    return details("Chart", "\n".join([*lines, "```"]))


def _axis(values: list[float]) -> tuple[float, float]:
    """Limits of the axis at which the smallest bar is still visible."""
    low, high = min(values), max(values)
    room = max(high - low, abs(high) * 0.02, 1e-3)
    bottom = low - room / 2
    step = 10 ** math.floor(math.log10(room))
    return math.floor(bottom / step) * step, math.ceil(high / step) * step


def _footer(review: Review) -> str:
    before, after = code(review.before.commit[:10]), code(review.after.commit[:10])
    text = f"{after} compared with {before}, where it began."
    if before == after:
        text = f"What is not committed yet, compared with {before}."
    if review.artifact_url:
        text += f" Plots and all figures: [artifact of this run]({review.artifact_url})."
    elif review.plots:
        text += " Plots and all figures are in the artifact of this run."
    return f"<sub>{text}</sub>"


def _value(text: str | None) -> str:
    return "–" if text is None else code(text)


def _cell(now: int, then: int) -> str:
    return f"{now:,}" if now == then else f"{now:,} ({now - then:+,})"


def _wrong(confusion: Confusion) -> int:
    return sum(map(sum, confusion.counts)) - sum(
        row[index] for index, row in enumerate(confusion.counts) if index < len(row)
    )


def _cv(figures: Algorithm | None) -> str:
    return spread(figures.cv, figures.cv_std) if figures else "–"


def _test(figures: Algorithm | None) -> str:
    if figures is None:
        return "–"
    score = Score(value=figures.test, low=figures.test_low, high=figures.test_high)
    return interval(score).replace(", ", f",{_NBSP}")


def _delta(old: Algorithm | None, new: Algorithm, of: Callable[[Algorithm], float]) -> str:
    """The difference; empty if zero or unknown."""
    if old is None:
        return ""
    text = signed(of(new) - of(old))
    return "" if text in ("+0.000", "-0.000") else text
