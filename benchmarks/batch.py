"""Measures batch scoring: rows per second and memory, beside a plain script of pyarrow and onnxruntime on the same parts.

A logistic regression of 30 features scores generated rows, from Parquet files to Parquet files. Takes five minutes and 4 GB of disk.
"""

from __future__ import annotations

# First, because it limits the numeric libraries to one thread.
import training  # noqa: F401

# isort: split
import argparse
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.contract import Bundle, DataOrigin, Manifest, ModelFile, sha256, write_bundle
from benchmarks import machine
from benchmarks.parity import TABLES, prepared
from common import files
from training.base import config
from training.data.dataset import Profile
from training.sections.algorithms import AlgorithmSettings
from training.train import algorithms
from training.train import fitting as train
from training.train.onnx import export

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/batch.md"
TABLE, ALGORITHM = "breast cancer", "logistic_regression"
WORKERS = 2
GROUP = 131_072

PLAIN = """
import sys
from multiprocessing import get_context
from pathlib import Path
import numpy as np, onnxruntime as ort, pyarrow as pa, pyarrow.parquet as pq

def score(part):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(sys.argv[1], options)
    table = pq.read_table(part, columns=[*features, "id"])
    numbers = np.column_stack([table[name].to_numpy() for name in features])
    label, probabilities = session.run(["label", "probabilities"], {"numbers": numbers})
    columns = {f"probability_{i}": probabilities[:, i] for i in range(probabilities.shape[1])}
    result = pa.table({"id": table["id"], "label": label, **columns})
    pq.write_table(result, Path(sys.argv[2]) / part.name)

parts = sorted(Path(sys.argv[3]).glob("*.parquet"))
features = [name for name in pq.read_schema(parts[0]).names if name != "id"]
if __name__ == "__main__":
    with get_context("fork").Pool(int(sys.argv[4])) as pool:
        pool.map(score, parts, chunksize=1)
"""


@dataclass(frozen=True)
class Run:
    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Of the largest process."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each part (default: %(default)s)")
    parser.add_argument(
        "--large", type=int, default=10_000_000, help="rows of the part for the memory (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULT, help="(default: benchmarks/results/batch.md)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = write_model(folder / "model")
        for part in range(options.parts):
            write_part(folder / f"in/{part}.parquet", names, options.rows, part)
        ours: list[Run] = []
        plain: list[Run] = []
        for _ in range(options.rounds):
            plain.append(run_plain(folder, WORKERS))
            ours.append(run_ours(folder, folder / "in", WORKERS))
        one = [(run_plain(folder, 1), run_ours(folder, folder / "in", 1)) for _ in range(options.rounds)]
        shutil.rmtree(folder / "in")
        large = []
        for rows in (options.large // 10, options.large):
            write_part(folder / "large/part.parquet", names, rows, 0, group=1_048_576)
            large.append((rows, run_ours(folder, folder / "large", WORKERS)))
    text = report(options.parts * options.rows, plain, ours, one, large)
    files.write_text(options.output, text)
    print(text)


def write_model(folder: Path) -> list[str]:
    """A fitted bundle; returns the names of its features."""
    profile, rows = prepared(TABLE, TABLES[TABLE]())
    parameters = {**config.defaults()["train"]["algorithms"][ALGORITHM]}
    parameters.pop("search", None)
    block = AlgorithmSettings.model_validate(parameters)
    model = export.export(
        train.fit(algorithms.pipeline(ALGORITHM, block, profile), rows, ALGORITHM), profile.layout
    )
    folder.mkdir()
    write_bundle(Bundle(manifest=manifest(profile, model), model=model), folder)
    return [each.name for each in profile.features]


def manifest(profile: Profile, model: bytes) -> Manifest:
    return Manifest(
        name="measured",
        algorithm=ALGORITHM,
        target=profile.target,
        classes=profile.classes,
        class_shares=profile.class_shares,
        out_of_range="reject",
        features=profile.features,
        metrics={},
        data=DataOrigin(source=TABLE, sha256="0" * 64, train_rows=profile.rows, test_rows=0),
        model=ModelFile(sha256=sha256(model), bytes=len(model), opset=export.OPSET),
    ).sealed()


def write_part(path: Path, names: Sequence[str], rows: int, seed: int, group: int = GROUP) -> None:
    """Rows of float64 that hardly compress, and an `id`."""
    path.parent.mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    schema = pa.schema([("id", pa.int64()), *((name, pa.float64()) for name in names)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, group):
            count = min(group, rows - start)
            columns = {name: generator.normal(10, 3, count) for name in names}
            writer.write_table(pa.table({"id": np.arange(start, start + count)} | columns, schema))


def run_ours(folder: Path, given: Path, workers: int) -> Run:
    options = ["--input", str(given), "--output", str(folder / "out"), "--keep", "id"]
    command = ["-m", "app.batch", *options, "--workers", str(workers)]
    return measured(folder, command, ESPALIER_MODEL_DIR=str(folder / "model"))


def run_plain(folder: Path, workers: int) -> Run:
    script = folder / "plain.py"
    script.write_text(PLAIN, encoding="utf-8")
    model = str(folder / "model/model.onnx")
    return measured(folder, [str(script), model, str(folder / "out"), str(folder / "in"), str(workers)])


def measured(folder: Path, arguments: Sequence[str], **environment: str) -> Run:
    """A run from the start of the process to its end, into an empty folder."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    start = time.perf_counter()
    # Between this process and the measured one is another, whose children are that one alone.
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE, encoding='utf-8')\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)\n"
        "sys.exit(done.stderr if done.returncode else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    cpu, peak = map(float, done.stdout.split())
    return Run(time.perf_counter() - start, cpu, peak)


def report(
    rows: int,
    plain: Sequence[Run],
    ours: Sequence[Run],
    one: Sequence[tuple[Run, Run]],
    large: Sequence[tuple[int, Run]],
) -> str:
    def line(name: str, runs: Sequence[Run], others: Sequence[Run]) -> str:
        rate = statistics.median(rows / each.seconds for each in runs)
        cpu = statistics.median(each.cpu_seconds for each in runs) / rows * 1e6
        ratio = statistics.median(b.seconds / a.seconds for a, b in zip(runs, others, strict=True))
        by_cpu = statistics.median(b.cpu_seconds / a.cpu_seconds for a, b in zip(runs, others, strict=True))
        peak = max(each.peak_mb for each in runs)
        return f"| {name} | {rate / 1e6:.2f} | {ratio:.2f} | {cpu:.2f} | {by_cpu:.2f} | {peak:.0f} |"

    singles = [each for each, _ in one], [each for _, each in one]
    table = [
        line(f"plain script, {WORKERS} processes", plain, plain),
        line(f"app.batch, {WORKERS} workers", ours, plain),
        line("plain script, 1 process", singles[0], singles[0]),
        line("app.batch, 1 worker", singles[1], singles[0]),
    ]
    memory = [f"| {count:,} | {count / run.seconds / 1e6:.2f} | {run.peak_mb:.0f} |" for count, run in large]
    packages = machine.versions(("pyarrow", "onnxruntime", "numpy"))
    return "\n".join(
        [
            "# Batch scoring",
            "",
            f"{rows:,} rows of 30 columns of float64 and an `id`, from Parquet files to Parquet files on the local disk, by a "
            "logistic regression; from the start of the process to its end. The plain script reads each part whole, calls onnxruntime, "
            "and writes label and probabilities: no checks of values, no bound on memory, nothing to resume. Ratios are to the plain "
            "script in the same round; other work on the machine reaches both.",
            "",
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine.cpu()}, {os.cpu_count()} cores, {packages}, "
            f"median of {len(ours)} rounds.",
            "",
            "| | million rows/s | speed, ratio | µs of processor a row | by processor, ratio | peak MB, largest process |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *table,
            "",
            f"One part with row groups of 1,048,576 rows, {WORKERS} workers:",
            "",
            "| rows | million rows/s | peak MB |",
            "| ---: | ---: | ---: |",
            *memory,
            "",
        ]
    )


if __name__ == "__main__":
    main()
