"""Columns of dates, or of dates and times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from app.moments import DAY_SECONDS, PARTS, maker, step, written
from training.data.columns import as_moments, as_text, moments
from training.draft.texts import MOST_ODD, MOST_REPLACED, Texts, is_placeholder, missing_share

DATE_YEARS = range(1500, 2500)
"""Most dates of a column are in these; 0012-05 is rather a code."""
_OFFSET = re.compile(r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Dates:
    """A column of dates, or of dates and times.

    Attributes:
        seen: the values.
        rows: of the column.
        local: whether some have no offset.
        placeholders: texts that mean that there is no value.
        others: texts that are no dates.
    """

    seen: list[datetime]
    rows: int
    local: bool
    placeholders: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, column: pd.Series[Any], texts: Texts | None) -> Dates | None:
        """None if the column does not hold dates."""
        if pd.api.types.is_numeric_dtype(column.dtype):
            return None
        values, wrong = as_moments(column)
        seen = [each for each in moments(values) if each is not None]
        usual = sum(each.year in DATE_YEARS for each in seen)
        if not seen or 2 * usual <= len(seen) or (texts is None and wrong.any()):
            return None
        odd = [] if texts is None else sorted(set(as_text(column[wrong])[0]))
        placeholders = tuple(each for each in odd if is_placeholder(each))
        others = tuple(each for each in odd if each not in placeholders)
        strange = sum(texts.counts[each] for each in others) if texts else 0
        if len(others) > MOST_REPLACED or strange > MOST_ODD * (len(seen) + strange):
            return None
        if texts is None:
            local = getattr(column.dtype, "tz", None) is None
        else:
            local = any(not _OFFSET.search(each) for each in texts.counts if each not in odd)
        return cls(seen, len(column), local, placeholders, others)

    @property
    def settings(self) -> dict[str, Any]:
        """As a feature, of which the parts are made that vary."""
        made = zip(*map(maker(PARTS), set(self.seen)), strict=True)
        parts = [part for part, values in zip(PARTS, made, strict=True) if len(set(values)) > 1]
        return {
            "type": "datetime",
            **({"parts": parts} if len(parts) < len(PARTS) else {}),
            **missing_share(self.rows - len(self.seen), self.rows),
        }

    def comment(self, texts: Texts | None) -> str:
        dates = step(self.seen) >= DAY_SECONDS
        low, high = (written(each)[: 10 if dates else None] for each in (min(self.seen), max(self.seen)))
        notes = [f"seen {low} to {high}"]
        if self.local and not dates:
            notes.append("times without an offset are in UTC: add `timezone: …` if they are local")
        if texts and (odd := (*self.placeholders, *self.others)):
            lost = ", which become missing; in data.replace, dates can be given" if self.others else ""
            notes.append(
                f"{len(self.seen):,} of {texts.total:,} cells are dates; the others: {texts.shown(odd)}{lost}"
            )
        return "; ".join(notes)
