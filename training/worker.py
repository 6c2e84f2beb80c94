"""Start a Dask worker for `train.engine: dask`: python -m training.worker tcp://SCHEDULER:8786

It has one thread, and the numeric libraries are set up as in training. Further options are those of `dask worker`.
"""

from __future__ import annotations

import sys

from training.base import cli
from training.base.errors import ConfigError


def main() -> None:
    try:
        from distributed.cli import dask_worker
    except ImportError:
        raise ConfigError("Dask is not installed: run `uv sync --inexact --group dask`") from None
    if not sys.argv[1:]:
        raise ConfigError("name the scheduler, as in `python -m training.worker tcp://127.0.0.1:8786`")
    dask_worker.main(["--nthreads", "1", "--no-dashboard", *sys.argv[1:]])


if __name__ == "__main__":
    cli.run(main)
