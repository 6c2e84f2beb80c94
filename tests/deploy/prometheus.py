"""A Prometheus on loopback that holds series made up beforehand, to be asked real queries."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.tools import free_port, require

NOW = 1_700_000_000
"""The time, in seconds, at which queries are asked and the series end."""
STEP = 15
"""Seconds between two samples, as the ServiceMonitor has it."""

Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], list[tuple[int, float]]]
"""Samples (time, value) by name and labels."""


class Prometheus:
    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, query: str) -> list[float]:
        """The values of an instant vector, as Argo Rollouts sees them.

        Raises:
            ValueError: the query is not understood; the message is Prometheus'.
        """
        asked = urllib.parse.urlencode({"query": query, "time": NOW})
        try:
            with urllib.request.urlopen(f"{self.address}/api/v1/query?{asked}", timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None
        return [float(each["value"][1]) for each in result]


@contextmanager
def serving(series: Series, folder: Path, rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """Serve the series, with rules loaded; skips when Prometheus is not installed."""
    promtool, prometheus = require("promtool"), require("prometheus")
    exposition = folder / "series.txt"
    exposition.write_text(_exposition(series))
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", exposition, folder / "data"],
        check=True,
        capture_output=True,
    )
    (folder / "prometheus.yml").write_text(json.dumps({"rule_files": [str(each) for each in rules]}))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                prometheus,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        _wait(process, f"{address}/-/ready", folder / "log")
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _exposition(series: Series) -> str:
    """OpenMetrics text. Types are left out: promtool would demand more of names than queries do."""
    lines = []
    for (name, labels), samples in series.items():
        inside = ",".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in labels)
        for at, value in samples:
            shown = "NaN" if math.isnan(value) else repr(value)
            lines.append(f"{name}{{{inside}}} {shown} {at}")
    return "\n".join(lines) + "\n# EOF\n"


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Prometheus does not get ready:\n{log.read_text()}")
