"""What a log says of a long step."""

from __future__ import annotations

import logging
import time

import pytest

from training.base.progress import progress


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
