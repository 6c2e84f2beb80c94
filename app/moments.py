"""Reads dates and times in ISO 8601, and makes the numbers of a datetime feature: in training and in the service."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from importlib.resources import files
from typing import Literal, get_args
from zoneinfo import ZoneInfo

import tzdata

Part = Literal["year", "month", "weekday", "hour", "elapsed"]
"""The weekday is 1 on Monday and 7 on Sunday; `elapsed` are seconds since 1970-01-01T00:00:00Z."""
PARTS: tuple[Part, ...] = get_args(Part)

EXAMPLE = "2024-05-01T12:30:00Z"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_SECONDS = 86_400
UNITS = (DAY_SECONDS * 10**6, 3600 * 10**6, 60 * 10**6, 10**6, 1000, 1)
"""Day, hour, minute, second, millisecond and microsecond, in microseconds."""

# Stricter than `fromisoformat`, which reads 1612010100000 as a moment of 1612 and accepts more in each version of Python.
_MOMENT = re.compile(
    r"(\d{4}-\d\d)(-\d\d)?"
    r"(?(2)(?:[T ](\d\d(?::\d\d(?::(?:[0-5]\d|(60))(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?)?))?)",
    re.ASCII,
)
_LEAP = (23, 59)
"""Hour and minute in UTC that may have a second 60."""

_MAKERS: dict[Part, Callable[[datetime], float]] = {
    "year": lambda moment: moment.year,
    "month": lambda moment: moment.month,
    "weekday": datetime.isoweekday,
    "hour": lambda moment: moment.hour,
    "elapsed": lambda moment: (moment - EPOCH).total_seconds(),
}


class Clock:
    """Reads moments in one time zone.

    Its moments are in that zone, so that their fields are what people there see.

    Raises:
        ValueError: there is no such zone.
    """

    def __init__(self, timezone: str = "UTC") -> None:
        self.zone = _zone(timezone)

    def read(self, text: str) -> datetime:
        """A date, a month, or a date and time; without an offset, in this zone.

        A time that the clocks skip is read with the offset before the change, a time that they repeat as the first one.
        The second 60 of a leap second is the next second. Digits beyond microseconds are cut off.

        Raises:
            ValueError: the text is not one of these, or the moment does not exist.
        """
        upper = text.upper()
        found = _MOMENT.fullmatch(upper)
        if found is None:
            raise ValueError(text)
        _, day, _, leap = found.groups()
        if leap:
            before = self.at(datetime.fromisoformat(upper.replace(":60", ":59", 1)))
            utc = before.astimezone(UTC)
            if (utc.hour, utc.minute) != _LEAP:
                raise ValueError(text)
            return self.at(utc + timedelta(seconds=1))
        return self.at(datetime.fromisoformat(upper if day else f"{upper}-01"))

    def at(self, value: date) -> datetime:
        """A date or a datetime, which is in this zone if it has none.

        Raises:
            ValueError: it is before the year 1 or after 9999 in UTC or in this zone.
        """
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self.zone)
        try:
            return moment.astimezone(UTC).astimezone(self.zone)
        except OverflowError:
            raise ValueError(f"{value} is out of range") from None


@cache
def clock(timezone: str) -> Clock:
    return Clock(timezone)


def maker(parts: Sequence[Part]) -> Callable[[datetime], tuple[float, ...]]:
    """A function from a moment to these numbers of it."""
    makers = tuple(_MAKERS[each] for each in parts)
    return lambda moment: tuple([make(moment) for make in makers])


def written(moment: datetime) -> str:
    """In ISO 8601 with the offset; `Clock.read` reads the same moment."""
    text = moment.isoformat()
    return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text


def step(moments: Sequence[datetime]) -> float:
    """The coarsest of day, hour, minute, second, millisecond and microsecond, in seconds, that all times are multiples of."""
    times = {(each.hour, each.minute, each.second, each.microsecond) for each in moments}
    micros = [((hour * 60 + minute) * 60 + second) * 10**6 + micro for hour, minute, second, micro in times]
    return next(unit for unit in UNITS if not any(each % unit for each in micros)) / 10**6


def zones() -> list[str]:
    """The names of all time zones."""
    return (files(tzdata) / "zones").read_text(encoding="utf-8").split()


class _Zone(ZoneInfo):
    """A zone that another process can read by its name; one that was read from a file cannot be pickled otherwise."""

    def __reduce__(self) -> tuple[Callable[[str], tzinfo], tuple[str]]:
        return _zone, (self.key,)


@cache
def _zone(name: str) -> tzinfo:
    """A zone with the rules of the locked package, which are the same on every machine."""
    if name == "UTC":
        return UTC
    if name not in zones():
        raise ValueError(f"there is no time zone {name!r}")
    with files(tzdata).joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return _Zone.from_file(file, key=name)
