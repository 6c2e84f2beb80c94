"""Other programs: what is said when one fails."""

import sys

import pytest

from deploy.errors import DeployError
from deploy.programs import call

FAILS = [sys.executable, "-c", "import sys; sys.exit('the reason\\nsee the log')"]


def test_a_failure_is_told_by_the_last_line() -> None:
    with pytest.raises(DeployError, match=r"ended with 1: see the log$"):
        call(FAILS)


def test_the_whole_output_is_told_where_the_reason_comes_first() -> None:
    with pytest.raises(DeployError, match=r"ended with 1:\nthe reason\nsee the log$"):
        call(FAILS, whole=True)
