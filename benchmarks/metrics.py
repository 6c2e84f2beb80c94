"""Measures a scrape of the metrics: its time, its size, its series, and its effect on requests.

A made-up model of 30 features with 10 bins each and 20 classes is served on one core. Every series that a used service
has is there: it was asked in each of its ways, wrongly too. Scrapes are timed from another core, beside a bare FastAPI
page of the same bytes in the same round. Then wrk sends single rows at full speed while nobody scrapes, while a scrape
comes every 15 s as Prometheus does it, and while one comes every second. Takes about five minutes; needs wrk.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import http.client
import json
import platform
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.contract import (
    MANIFEST_FILE,
    MODEL_FILE,
    Bin,
    DataOrigin,
    Example,
    Manifest,
    ModelFile,
    NumberFeature,
    Score,
    sha256,
)
from benchmarks import machine
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.exchange import Exchange, Prediction
from benchmarks.serving.processes import HOST, ROOT, Cores, Running, Server, pick_cores, running
from benchmarks.serving.wrk import Outcome, finish, require_wrk, sending, version
from common import files

RESULT = ROOT / "benchmarks/results/metrics.md"
FEATURES, BINS, CLASSES = 30, 10, 20
SCRAPES = 200
"""Scrapes of each page in a round."""
INTERVALS = (None, 15.0, 1.0)
"""Seconds between scrapes under load; 15 is what the ServiceMonitor says."""
SECONDS = 30
OPSET = 17


@dataclass
class Round:
    """Milliseconds of each scrape, and wrk's results by scrape interval."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    load: dict[float | None, Outcome] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each load (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=RESULT, help="(default: benchmarks/results/metrics.md)"
    )
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("give at least one round and one second")
    try:
        require_wrk()
        cores = pick_cores()
        with tempfile.TemporaryDirectory(prefix="espalier-metrics-") as folder:
            page, rounds = measure(Path(folder), cores, options.rounds, options.seconds)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    text = report(page, rounds, options.seconds)
    files.write_text(options.output, text)
    print(text)


def measure(folder: Path, cores: Cores, count: int, seconds: int) -> tuple[bytes, list[Round]]:
    """The page of a used service, and the figures of each round."""
    manifest = write_bundle(folder / "model")
    rows = [json.dumps(row).encode() for row in draw(manifest, 64)]
    environment = {
        "ESPALIER_MODEL_DIR": str(folder / "model"),
        "ESPALIER_PORT": "{port}",
        "ESPALIER_DRAIN_SECONDS": "0",
    }
    ours = Server([sys.executable, "-m", "app"], environment)
    with running(ours, cores.server) as service:
        page = use(service, rows)
    (folder / "page").write_bytes(page)
    command = [sys.executable, "-m", "uvicorn", "benchmarks.static_page:app", "--port={port}"]
    command += ["--http=httptools", "--loop=uvloop", "--no-access-log", "--log-level=warning"]
    bare = Server(command, {"PAGE_FILE": str(folder / "page")})
    rounds = []
    for number in range(count):
        print(f"round {number + 1} of {count}", file=sys.stderr, flush=True)
        rounds.append(one_round(ours, bare, rows, cores, seconds))
    return page, rounds


def one_round(ours: Server, bare: Server, rows: Sequence[bytes], cores: Cores, seconds: int) -> Round:
    made = Round()
    with running(ours, cores.server) as service, running(bare, cores.server) as beside:
        use(service, rows)
        beside.first_answer("GET", "/metrics")
        with connected(service) as first, connected(beside) as second:
            for _ in range(10):
                scrape(first)
                scrape(second)
            # Alternated, so that other load on the machine affects both.
            for _ in range(SCRAPES):
                made.ours.append(timed(first))
                made.bare.append(timed(second))
    expected = Prediction([], np.empty((0, CLASSES)))
    exchange = Exchange("/predict", rows, expected, read=None)
    for interval in INTERVALS:
        with running(ours, cores.server) as service:
            use(service, rows)
            with (
                sending(service, exchange, seconds, cores.client) as process,
                scraped(service, interval),
            ):
                outcome = finish(process)
            if outcome.faults:
                raise BenchmarkError(f"not every answer was good: {'; '.join(outcome.faults)}")
            made.load[interval] = outcome
    return made


def use(service: Running, rows: Sequence[bytes]) -> bytes:
    """Send every kind of request, so that all series exist, and return the page."""
    service.first_answer("GET", "/health/ready")
    headers = {"Content-Type": "application/json"}
    for row in rows:
        service.request("POST", "/predict", row, headers)
    batch = json.dumps({"instances": [json.loads(row) for row in rows]}).encode()
    service.request("POST", "/predict", batch, headers)
    for wrong in (b"{", b"{}", b'{"feature_00": "x"}', b"[]"):
        service.request("POST", "/predict", wrong, headers)
    for path in ("/", "/model", "/docs", "/openapi.json", "/v2", "/v2/models/wide", "/nowhere"):
        service.request("GET", path)
    return service.request("GET", "/metrics").body


@contextmanager
def connected(server: Running) -> Iterator[http.client.HTTPConnection]:
    """A connection that is kept open, as Prometheus does."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def scrape(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4"})
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise BenchmarkError(f"/metrics is answered with {response.status}")
    return body


def timed(connection: http.client.HTTPConnection) -> float:
    started = time.perf_counter()
    scrape(connection)
    return (time.perf_counter() - started) * 1000


@contextmanager
def scraped(service: Running, interval: float | None) -> Iterator[None]:
    """Scrapes at an interval, the first time after half of it."""
    over = threading.Event()

    def go_on() -> None:
        assert interval is not None
        wait = interval / 2
        with connected(service) as connection:
            while not over.wait(wait):
                scrape(connection)
                wait = interval

    thread = threading.Thread(target=go_on)
    if interval is not None:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if interval is not None:
            thread.join()


def write_bundle(folder: Path) -> Manifest:
    """Numbers from 0 to 10 with ten equal bins, and a linear model of as many classes as asked."""
    random = np.random.default_rng(7)
    weights = random.normal(size=(FEATURES, CLASSES))
    classes = tuple(f"class_{index:02}" for index in range(CLASSES))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["numbers", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        "wide",
        [helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, [None, FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, [None, CLASSES]),
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    content = model.SerializeToString(deterministic=True)
    edges = tuple(float(edge) for edge in range(1, BINS))
    example = np.full(FEATURES, 5.0)
    label = classes[int((example @ weights).argmax())]
    names = [f"feature_{index:02}" for index in range(FEATURES)]
    manifest = Manifest.model_validate(
        {
            "name": "wide",
            "algorithm": "logistic_regression",
            "target": "class",
            "classes": classes,
            "class_shares": [1 / CLASSES] * CLASSES,
            "out_of_range": "reject",
            "features": tuple(
                NumberFeature(
                    name=name,
                    unit="",
                    minimum=0,
                    maximum=BINS,
                    bounded=True,
                    step=0.01,
                    typical=5,
                    missing=False,
                    edges=edges,
                    bins=tuple(Bin(label=f"{low}..{low + 1}", share=1 / BINS) for low in range(BINS)),
                )
                for name in names
            ),
            "metrics": {"test": {"accuracy": Score(value=0.9, low=0.8, high=1.0)}},
            "data": DataOrigin(source="made:for-the-benchmark", sha256="0" * 64, train_rows=1, test_rows=1),
            "model": ModelFile(sha256=sha256(content), bytes=len(content), opset=OPSET),
            "examples": [Example(values=dict(zip(names, example.tolist(), strict=True)), label=label)],
        }
    ).sealed()
    folder.mkdir()
    (folder / MODEL_FILE).write_bytes(content)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    return manifest


def draw(manifest: Manifest, count: int) -> list[dict[str, float]]:
    values = np.random.default_rng(3).uniform(0, BINS, size=(count, FEATURES)).round(2)
    names = [feature.name for feature in manifest.features]
    return [dict(zip(names, row, strict=True)) for row in values.tolist()]


def report(page: bytes, rounds: Sequence[Round], seconds: int) -> str:
    families = Counter(
        re.split(r"[{ ]", line, maxsplit=1)[0]
        for line in page.decode().splitlines()
        if line and not line.startswith("#")
    )
    total = sum(families.values())
    own = ("model_feature_bin_total", "model_feature_reference_ratio", "model_rejected_fields_total")
    rest = total - sum(families[name] for name in own)
    times = [
        ("this service", [each.ours for each in rounds]),
        ("a bare FastAPI page of these bytes", [each.bare for each in rounds]),
    ]
    ratios = [statistics.median(each.ours) / statistics.median(each.bare) for each in rounds]
    ours = statistics.median(statistics.median(each.ours) for each in rounds)
    lines = [
        "# The cost of metrics",
        "",
        f"A made-up model of {FEATURES} features with {BINS} bins each and {CLASSES} classes, after it was asked in "
        "each of its ways. Of several figures the median is shown and, in brackets, the lowest and the highest of "
        f"the {len(rounds)} rounds.",
        "",
        "## A page",
        "",
        f"{len(page):,} bytes, {len(gzip.compress(page)):,} of them if they were compressed; {total:,} series from "
        "each pod:",
        "",
        "| series | how many |",
        "| --- | ---: |",
        *(f"| `{name}` | {families[name]:,} |" for name in own if families[name]),
        f"| all others | {rest:,} |",
        "",
        "## A scrape",
        "",
        f"{SCRAPES} in a row in each round, over one kept connection, in turn with the page beside it.",
        "",
        "| what | p50 ms | p99 ms |",
        "| --- | ---: | ---: |",
        *(
            f"| {name} | {_spread([statistics.median(each) for each in found])} "
            f"| {_spread([_percentile(each, 99) for each in found])} |"
            for name, found in times
        ),
        "",
        f"That is {_spread(ratios, 1)} times the bare page. Every 15 s, it takes {ours / 15_000:.2%} of one core.",
        "",
        "## What requests notice",
        "",
        f"wrk with 16 connections and single rows at full speed, {seconds} s each. While a page is made no request is "
        "answered, so what a scrape can do to one request is to delay it by as long as it takes itself.",
        "",
        "| scraped | requests/s | p50 ms | p99 ms | p99 beside nobody's |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for interval in INTERVALS:
        found = [each.load[interval] for each in rounds]
        beside = [each.load[interval].p99_ms / each.load[None].p99_ms for each in rounds]
        lines.append(
            f"| {'never' if interval is None else f'every {interval:g} s'} "
            f"| {_spread([each.requests_per_second for each in found], 0)} "
            f"| {_spread([each.p50_ms for each in found])} | {_spread([each.p99_ms for each in found])} "
            f"| {'' if interval is None else _spread(beside)} |"
        )
    for interval in INTERVALS[1:]:
        beside = [each.load[interval].p99_ms / each.load[None].p99_ms for each in rounds]
        if min(beside) < 1 < max(beside):
            lines += [
                "",
                f"Every {interval:g} s: p99 was better in some rounds and worse in others, so no effect was shown.",
            ]
    packages = ("prometheus-client", "prometheus-fastapi-instrumentator", "fastapi", "uvicorn")
    lines += [
        "",
        "## On what",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine.cpu()}, Python {platform.python_version()}, "
        f"{machine.versions(packages)}, wrk {version()}. The server had one core and the load another. Brackets "
        "say how much the rounds differed. `python -m benchmarks.metrics` measures it again.",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], digits: int = 2) -> str:
    middle = f"{statistics.median(values):,.{digits}f}"
    return f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _percentile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent))


if __name__ == "__main__":
    main()
