"""What a log says of a long step."""

from __future__ import annotations

import logging
import time

import pytest

from training.base.progress import MANY, counted, progress, step


def test_a_log_has_one_line_a_minute_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), progress("svm: search", 300, "fits") as done:
        for _ in range(15):
            now[0] += 10
            done.advance()
    assert [record.message for record in caplog.records] == [
        "svm: search: 6 of 300 fits in 1 min 0 s, about 49 min 0 s left",
        "svm: search: 12 of 300 fits in 2 min 0 s, about 48 min 0 s left",
    ]


def test_without_a_total_there_is_no_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), progress("fetch") as done:
        now[0] = 61
        done.advance(1_500_000)
    assert [record.message for record in caplog.records] == ["fetch: 1,500,000 rows in 1 min 1 s"]


def test_with_many_rows_the_log_says_what_begins(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for rows in (MANY - 1, 8_000_000):
            with step("svm: fit", rows):
                pass
            with progress("svm: cross-validation", 5, "folds", rows):
                pass
            assert list(counted("ab", "prepare: check", "columns", rows)) == ["a", "b"]
    assert [record.message for record in caplog.records] == [
        "svm: fit: 8,000,000 rows",
        "svm: cross-validation: 5 folds of 8,000,000 rows",
        "prepare: check: 2 columns of 8,000,000 rows",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "25 h 0 min")]
)
def test_long_times_are_told_in_hours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float, text: str
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("training.base.progress.SECONDS", 1.0)
    with caplog.at_level(logging.INFO), progress("fetch") as done:
        now[0] = seconds
        done.advance()
    assert [record.message for record in caplog.records] == [f"fetch: 1 rows in {text}"]
