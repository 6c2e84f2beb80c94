from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from app.process import stop_signals
from tests.app.batch.parts import Command


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs the command; the handlers of signals are put back."""
    before = {each: signal.getsignal(each) for each in stop_signals()}
    yield Command(monkeypatch, capsys)
    for each, handler in before.items():
        signal.signal(each, handler)
