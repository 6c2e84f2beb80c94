"""Columns of categories, and the reasons for which texts are not categories."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from app.cells import PLAIN, Cells
from app.moments import EXAMPLE
from training.draft.marks import parsed
from training.draft.texts import (
    FEWEST_ROWS_EACH,
    HANDFUL,
    Texts,
    advice_on_identifier,
    is_placeholder,
    missing_share,
    short,
)

MOST_CATEGORIES = 200
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ].*)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?: .*)?"
    r"|\d{1,2}[-/. ]?[A-Za-z]{3,9}[-/., ]+\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{2,4}"
    r"|\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?",
    re.ASCII,
)


def category_column(texts: Texts, cells: Cells) -> tuple[dict[str, Any], str] | str:
    words = words_among(texts.counts, cells)
    counts = {each: count for each, count in texts.counts.items() if each not in words}
    total = sum(counts.values())
    if not counts:
        return "left out, since every value is missing"
    if len(counts) == 1 and total == texts.rows:
        return f"left out, since it is {short(next(iter(counts)))} in every row"
    if len(counts) > 1 and all(_DATE.fullmatch(each) for each in counts):
        return (
            f"left out, since it holds dates or times that are not in ISO 8601: write them as {EXAMPLE[:10]} or {EXAMPLE} in the "
            "source, or a time of day as a number"
        )
    length = sum(len(each.split()) * count for each, count in counts.items()) / total
    few = len(counts) <= max(2, min(HANDFUL, total // 2))
    often = len(counts) <= MOST_CATEGORIES and total >= FEWEST_ROWS_EACH * len(counts)
    if not few and not often:
        return _not_categories(texts, counts)
    if length > 5 and len(counts) > HANDFUL:
        return f"left out, since its {len(counts)} different texts of {length:.0f} words on average are free text"
    categories = ordered(counts)
    feature = {"type": "category", "categories": categories, **missing_share(texts.rows - total, texts.rows)}
    doubtful = [each for each in counts if is_placeholder(each)]
    note = f"{texts.shown(doubtful)} is a value here: data.missing can list it" if doubtful else ""
    return feature, note


def words_among(texts: Iterable[str], cells: Cells) -> set[str]:
    """The words for missing, without those that are codes like the other texts: NA between DE and FR."""
    others = [each for each in texts if each not in cells.missing]
    code = re.compile(r"[A-Z]{2}")
    codes = len(others) >= 3 and all(map(code.fullmatch, others))
    return {each for each in cells.missing if not (codes and code.fullmatch(each))}


def _not_categories(texts: Texts, counts: dict[str, int]) -> str:
    total = sum(counts.values())
    if len(counts) == total:
        return f"left out, since its {total:,} texts all differ: an identifier or free text"
    numbers = [each for each in counts if parsed(each, PLAIN) is not None]
    if len(numbers) > len(counts) / 2:
        odd = [each for each in counts if each not in set(numbers)]
        count = sum(counts[each] for each in numbers)
        if odd:
            return (
                f"left out, since {count:,} of {total:,} cells are numbers and the others are not: "
                f"{texts.shown(odd)}"
            )
    return (
        f"left out, since its {len(counts):,} different texts in {total:,} cells are too many for categories: "
        f"group them with data.replace{advice_on_identifier(total, len(counts))}"
    )


def are_codes(column: pd.Series[Any]) -> bool:
    """Whether a column's texts look like numbers and are codes, such as 007."""
    texts = Texts.of(column)
    return texts is not None and texts.are_codes


def ordered(values: Iterable[str]) -> list[str]:
    """Sorted texts, whole numbers by value, so that 10 follows 9."""
    texts = sorted(values)
    return (
        sorted(texts, key=int) if all(re.fullmatch(r"-?\d{1,9}", each, re.ASCII) for each in texts) else texts
    )
