"""How dates and times are read, and the numbers that are made of them."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.moments import PARTS, Clock, Part, maker, step, written, zones

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Chatham", "Pacific/Apia")
# Not at the ends of the calendar, which not every time zone has.
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def parts(text: str, zone: str = "UTC", of: tuple[Part, ...] = PARTS) -> tuple[float, ...]:
    return maker(of)(Clock(zone).read(text))


@pytest.mark.parametrize("zone", ZONES)
def test_another_process_gets_the_same_moment(zone: str) -> None:
    moment = Clock(zone).read("2024-10-27T02:30:00+01:00")

    assert pickle.loads(pickle.dumps(moment)).tzinfo is moment.tzinfo
    assert pickle.loads(pickle.dumps(moment)) == moment


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2024-05-01T12:30:00Z", "UTC", (2024, 5, 3, 12, 1714566600)),
        ("2024-05-01t12:30:00z", "UTC", (2024, 5, 3, 12, 1714566600)),
        ("2024-05-01 14:30+02", "UTC", (2024, 5, 3, 12, 1714566600)),
        ("2024-05-01T14:30:00.000+0200", "Europe/Berlin", (2024, 5, 3, 14, 1714566600)),
        ("2024-05-01T12:30", "America/New_York", (2024, 5, 3, 12, 1714581000)),
        ("2024-05-01T23", "UTC", (2024, 5, 3, 23, 1714604400)),
        ("2024-05-01", "UTC", (2024, 5, 3, 0, 1714521600)),
        ("2024-05", "UTC", (2024, 5, 3, 0, 1714521600)),
        ("2024-12-31T23:30Z", "Europe/Berlin", (2025, 1, 3, 0, 1735687800)),
        ("1969-12-31T23:59:59.25Z", "UTC", (1969, 12, 3, 23, -0.75)),
        ("1900-02-28", "UTC", (1900, 2, 3, 0, -2203977600)),
        ("0001-01-01", "UTC", (1, 1, 1, 0, -62135596800)),
        ("9999-12-31T23:59:59Z", "UTC", (9999, 12, 5, 23, 253402300799)),
        # The clocks skip it: read with the offset before. The clocks repeat it: the first one.
        ("2024-03-31T02:30", "Europe/Berlin", (2024, 3, 7, 3, 1711848600)),
        ("2024-10-27T02:30", "Europe/Berlin", (2024, 10, 7, 2, 1729989000)),
        ("2024-10-27T02:30+01:00", "Europe/Berlin", (2024, 10, 7, 2, 1729992600)),
        # Leap seconds are at the end of a day in UTC.
        ("2016-12-31T23:59:60Z", "UTC", (2017, 1, 7, 0, 1483228800)),
        ("2017-01-01T00:59:60.5+01:00", "UTC", (2017, 1, 7, 0, 1483228800.5)),
        # As written before there were time zones.
        ("1800-01-01", "Europe/Berlin", (1800, 1, 3, 0, -5364665608)),
        # More digits than microseconds are cut off.
        ("2024-05-01T12:30:00.123456999Z", "UTC", (2024, 5, 3, 12, 1714566600.123456)),
    ],
)
def test_a_moment_has_these_parts(text: str, zone: str, expected: tuple[float, ...]) -> None:
    assert parts(text, zone) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024",
        "20240501",
        "1714566600",
        "1612010100000",
        "2024-02-30",
        "2024-13-01",
        "2024-5-1",
        "0000-01-01",
        "10000-01-01",
        "2024-05-01x12:30",
        "2024-05-01T",
        "2024-05-01Z",
        "2024-05-01T24:00",
        "2024-05-01T12:60",
        "2024-05-01T12:30:61",
        "2024-05-01T12:30:60Z",
        "2016-12-31T23:59:60+01:00",
        "2024-05-01T12:30+25:00",
        "2024-05-01T12:30 UTC",
        "2024-W18-3",
        "12:30",
        "1.5.2024",
        "now",
        "2024-05-01\n",
        "٢٠٢٤-05-01",
        "0001-01-01T00:00+01:00",
        "9999-12-31T23:30-01:00",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the message differs
        parts(text)


def test_a_moment_beyond_the_calendar_of_its_zone_is_refused() -> None:
    assert parts("9999-12-31T23:30Z", "America/New_York", ("hour",)) == (18,)
    with pytest.raises(ValueError, match="out of range"):
        parts("9999-12-31T23:30Z", "Asia/Kolkata")


@given(moments, offsets, st.sampled_from(ZONES))
def test_the_parts_are_those_of_the_zone_whatever_the_offset(
    moment: datetime, offset: timezone, zone: str
) -> None:
    text = moment.astimezone(offset).isoformat()
    local = moment.astimezone(ZoneInfo(zone))
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parts(text, zone) == (
        local.year,
        local.month,
        local.isoweekday(),
        local.hour,
        micros / 10**6,
    )
    assert parts(text.replace("T", " "), zone) == parts(text, zone)


@given(moments, st.sampled_from(ZONES))
def test_what_is_written_is_read_again(moment: datetime, zone: str) -> None:
    clock = Clock(zone)
    again = clock.read(written(clock.at(moment)))
    assert again == moment
    assert maker(PARTS)(again) == maker(PARTS)(clock.at(moment))


def test_every_time_zone_can_be_read_and_others_cannot() -> None:
    names = zones()
    assert {"UTC", "Europe/Berlin", "Asia/Kathmandu"} <= set(names)
    for name in names:
        Clock(name)
    for name in ("", "Europe/Berlinn", "+02:00", "../zones", "Europe", "CEST"):
        with pytest.raises(ValueError, match="no time zone"):
            Clock(name)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2024-05-01", "2024-05-03"], 86400),
        (["2024-05-01", "2024-05-01T06:00"], 3600),
        (["2024-05-01T06:30"], 60),
        (["2024-05-01T06:30:15"], 1),
        (["2024-05-01T06:30:15.25"], 0.001),
        (["2024-05-01T06:30:15.250001"], 0.000001),
    ],
)
def test_the_step_is_the_coarsest_unit(texts: list[str], expected: float) -> None:
    clock = Clock("Europe/Berlin")
    assert step([clock.read(each) for each in texts]) == expected
