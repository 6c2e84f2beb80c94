"""The parts of the benchmark: each with its subject, its base and its goal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import servers, shapes
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.exchange import verify
from benchmarks.serving.measure import MB, Bench, Target
from benchmarks.serving.processes import ROOT, running
from benchmarks.serving.results import Comparison, Part, PartName, Quantity
from benchmarks.serving.subjects import FOREST, LINEAR, TREES, Subject, fit_forest

BATCH = 1_000
LARGE_BATCH = 10_000
STARTS = 5
"""At least so many, because a start takes little time."""


@dataclass(frozen=True)
class Setup:
    """What the parts share.

    Attributes:
        bench: how to measure.
        subjects: the models by algorithm.
        folder: for files that are needed as long as the benchmark runs.
    """

    bench: Bench
    subjects: Mapping[str, Subject]
    folder: Path


def one_row(setup: Setup) -> Part:
    """Every algorithm, compared with a server that does nothing."""
    forest = setup.subjects[FOREST]
    targets = [
        Target(
            name,
            servers.ours(subject),
            shapes.single(subject),
            least=0.45 if name == "svm" else 0.65,
            most_p99=2,
        )
        for name, subject in setup.subjects.items()
    ]
    protocol = shapes.tensors(forest, forest.rows, per_request=1)
    targets.append(Target(f"{FOREST}, `/v2` JSON", servers.ours(forest), protocol))
    answer = _answer(setup, forest)
    base = Target("bare server", servers.bare(answer, setup.folder), shapes.unread(targets[0].exchange))
    return Part(
        comparisons=setup.bench.compare(base, targets),
        notes=(
            f"The bare server reads the body and answers {len(answer)} constant bytes, as many as ours. "
            f"{len(forest.rows)} different rows are sent in turn.",
        ),
    )


def peers(setup: Setup) -> Part:
    """One row to a random forest, compared with other servers; the ratio says how many times as fast ours is."""
    forest = setup.subjects[FOREST]
    targets = _in_our_environment(setup, forest)
    skipped: dict[str, str] = {}
    for name, make in servers.FRAMEWORKS.items():
        try:
            targets += make(forest)
        except BenchmarkError as error:
            setup.bench.say(f"{name} is left out: {error}")
            skipped[name] = str(error)
    base = Target("ours", servers.ours(forest), shapes.single(forest))
    comparisons = setup.bench.compare(base, targets, ours_is_base=True, skipped=skipped)
    return Part(
        comparisons=comparisons,
        notes=(
            f"A forest of {TREES} trees everywhere: the same ONNX file in onnxruntime with one thread, or "
            "scikit-learn's own. FastAPI with scikit-learn runs on uvicorn's defaults; the others write no "
            "access log. Every server has one core.",
        ),
        skipped=skipped,
    )


def batch(setup: Setup) -> Part:
    """A thousand rows per request to a linear model, compared with a FastAPI route that takes a list of models."""
    subject = setup.subjects[LINEAR]
    rows = subject.sample(BATCH)
    server = servers.ours(subject)
    by_name = shapes.many(subject, rows)
    plain = servers.under_uvicorn("plain_batch", "--no-access-log", MODEL_FILE=subject.model)
    tuned = servers.under_uvicorn("plain_batch_tuned", "--no-access-log", MODEL_FILE=subject.model)
    protocol = shapes.tensors(subject, rows, per_request=BATCH)
    targets = [
        Target("FastAPI, tuned: answers by orjson", tuned, by_name),
        Target("`instances`, by name", server, by_name, least=2),
        Target("`columns`", server, shapes.columns(subject, rows), least=12),
        Target("`/v2` JSON", server, protocol, least=10),
        Target("`/v2` binary", server, shapes.binary_tensors(subject, rows), least=15),
    ]
    return Part(
        comparisons=setup.bench.compare(Target("plain FastAPI", plain, by_name), targets),
        notes=(
            f"{LINEAR}. The plain route takes and answers lists of pydantic models, with onnxruntime on one "
            "thread between them and no metrics; the tuned one answers dictionaries with orjson.",
        ),
    )


def mixed(setup: Setup) -> Part:
    """Single rows while another client sends large batches, compared with single rows alone."""
    comparisons: list[Comparison] = []
    for name in (LINEAR, FOREST):
        subject = setup.subjects[name]
        server, exchange = servers.ours(subject), shapes.single(subject)
        large = shapes.columns(subject, subject.sample(LARGE_BATCH))
        alone = Target("alone", server, exchange)
        target = Target(name, server, exchange, background=large, least=0.8, most_p99=2)
        comparisons += setup.bench.compare(alone, [target])
    return Part(
        comparisons=tuple(comparisons),
        notes=(f"The other client has one connection and sends `columns` of {LARGE_BATCH:,} rows.",),
    )


def start(setup: Setup) -> Part:
    """The time from the start to the first response, and the memory after many."""
    subject = setup.subjects[FOREST]
    # The first start reads files from disk, later ones from memory.
    _start(setup, subject)
    starts = [_start(setup, subject) for _ in range(max(STARTS, setup.bench.rounds))]
    ready, predicted = zip(*starts, strict=True)
    memory = [_memory(setup, subject) for _ in range(setup.bench.rounds)]
    after_rows, after_batches = zip(*memory, strict=True)
    setup.bench.say(
        f"first answer after {statistics.median(predicted):.3f} s, "
        f"{statistics.median(after_batches):.0f} MB resident after load"
    )
    return Part(
        quantities=(
            Quantity(name="start to the first 200 of `/health/ready`", unit="s", values=ready, most=0.45),
            Quantity(name="start to the first 200 of `/predict`", unit="s", values=predicted, most=0.45),
            Quantity(name="memory after single rows", unit="MB", values=after_rows, most=110),
            Quantity(
                name=f"memory after batches of {BATCH:,} rows too", unit="MB", values=after_batches, most=110
            ),
        ),
        notes=(f"{FOREST}. Memory is VmRSS of the one process, in 10⁶ bytes. Byte code is compiled before.",),
    )


PARTS: Mapping[PartName, Callable[[Setup], Part]] = {
    "one-row": one_row,
    "peers": peers,
    "batch": batch,
    "mixed": mixed,
    "start": start,
}


def _in_our_environment(setup: Setup, forest: Subject) -> list[Target]:
    file = setup.folder / "forest.joblib"
    fit_forest(ROOT, forest.manifest.target, file)
    exchange = shapes.single(forest)
    naive = servers.under_uvicorn("naive", MODEL_FILE=file)
    plain = servers.under_uvicorn("plain", "--no-access-log", MODEL_FILE=forest.model)
    return [
        Target("FastAPI, sync, pandas, scikit-learn", naive, exchange, least=100),
        Target("FastAPI, async, pydantic, instrumentator", plain, exchange),
    ]


def _answer(setup: Setup, subject: Subject) -> bytes:
    """The service's response to the first row."""
    exchange = shapes.single(subject)
    with running(servers.ours(subject), setup.bench.cores.server) as server:
        return server.first_answer("POST", exchange.path, exchange.bodies[0], exchange.headers).body


def _start(setup: Setup, subject: Subject) -> tuple[float, float]:
    """Seconds to the first good answer of readiness, and of a prediction after that."""
    exchange = shapes.single(subject)
    with running(servers.ours(subject), setup.bench.cores.server) as server:
        server.first_answer("GET", "/health/ready")
        ready = time.perf_counter() - server.started
        server.first_answer("POST", exchange.path, exchange.bodies[0], exchange.headers)
        predicted = time.perf_counter() - server.started
        verify(server, exchange)
        return ready, predicted


def _memory(setup: Setup, subject: Subject) -> tuple[float, float]:
    """Resident memory after single rows, and after batches on top of them."""
    seconds = setup.bench.seconds
    rows, batches = shapes.single(subject), shapes.many(subject, subject.sample(BATCH))
    with running(servers.ours(subject), setup.bench.cores.server) as server:
        server.first_answer("GET", "/health/ready")
        setup.bench.send(server, rows, seconds)
        after_rows, _ = server.memory()
        setup.bench.send(server, batches, seconds)
        after_batches, _ = server.memory()
        return after_rows / MB, after_batches / MB
