"""How commands end."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from {family}.errors import run
run(lambda: print({lines}))
"""


@pytest.mark.parametrize("lines", ["'line'", "'line\\n' * 100_000"])
@pytest.mark.parametrize("family", ["deploy", "monitoring"])
def test_a_reader_that_has_had_enough_is_no_error(family: str, lines: str) -> None:
    """As `command | head -1`; little output is written at the very end, much while the command runs."""
    command = [sys.executable, "-c", SCRIPT.format(family=family, lines=lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
