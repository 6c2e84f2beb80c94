"""`python -m app.batch`: scores Parquet files with the bundle that the service would serve."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys

from app.process import configure_logging, stop_signals

REPORT_SECONDS = 60
TERMINAL_SECONDS = 5


def main(arguments: list[str] | None = None) -> int:
    """Score what has no result yet; returns 0 if all parts have one, otherwise 1."""
    for sig in stop_signals():
        # Not 0, which would tell Kubernetes that the job is done. Another run goes on where this one ended.
        signal.signal(sig, lambda number, _: os._exit(128 + number))
    options = parser().parse_args(arguments)
    if importlib.util.find_spec("pyarrow") is None:
        return _fail(
            "batch scoring needs pyarrow: `uv sync --group batch`, or an image that was built with FEATURES=batch"
        )
    from app.batch.errors import BatchError
    from app.batch.run import Batch
    from app.batch.scoring import Options, Scorer
    from app.contract import BundleError, read_bundle
    from app.settings import SettingsError, read_settings

    terminal = sys.stderr.isatty()
    try:
        settings = read_settings()
        configure_logging("text" if terminal else settings.log_format)
        bundle = read_bundle(settings.model_dir)
        scorer = Scorer(bundle, Options(options.answers, options.keep, options.on_error))
        batch = Batch(scorer, options.input, options.output)
    except (SettingsError, BundleError, BatchError) as error:
        return _fail(str(error))
    return 1 if batch.run(options.workers, TERMINAL_SECONDS if terminal else REPORT_SECONDS).failed else 0


def parser() -> argparse.ArgumentParser:
    """Of the command line; a check of the manifests uses it too."""
    from app.settings import listed

    def names(given: str) -> tuple[str, ...]:
        return tuple(listed(given))

    made = argparse.ArgumentParser(
        prog="python -m app.batch",
        description="Score Parquet files with the bundle in ESPALIER_MODEL_DIR. Parts that are done are skipped.",
        epilog="Places are folders, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX. "
        "Columns whose names have commas are given as a JSON list.",
    )
    made.add_argument(
        "--input",
        nargs="+",
        required=True,
        help="files, folders, or patterns with * ? and **/; quote them, so that the shell leaves them alone",
    )
    made.add_argument(
        "--output", required=True, help="folder of the results, which are below the version of the model"
    )
    made.add_argument(
        "--keep",
        type=names,
        default=(),
        metavar="COLUMNS",
        help="columns of the input to copy, such as id,customer",
    )
    made.add_argument(
        "--answers",
        type=names,
        default=(),
        help="label, probability (of the label) and probabilities (of every class), or value and interval "
        "(default: label,probabilities or value,interval)",
    )
    made.add_argument(
        "--on-error",
        choices=("null", "fail"),
        default="null",
        help="a row that the service would refuse gets nulls and a text in the column error, or fails its part "
        "(default: null)",
    )
    made.add_argument(
        "--workers",
        type=_workers,
        default=_cores(),
        help="parts at the same time (default: the processor's cores, %(default)s)",
    )
    return made


def _workers(given: str) -> int:
    number = int(given)
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError("it must be from 1 to 256")
    return number


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
