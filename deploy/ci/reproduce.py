"""Reproduces what a branch changed, and writes everything that the next steps need to one folder.

lock.patch   what changed in git: dvc.lock, metrics, reports; empty when the lock was current
comment.md   the result for the pull request: training.review's text, or why there is none
review/      what training.review writes: the text, all figures, the plots; review/NAME for a further model

The comment has a section for each model that the branch changed, and is one line if it changed none.
With --keep-going, and so with --refresh, a model whose source or stages fail does not stop the others: their changes are in
the patch, and the comment has a section for each model that failed. Otherwise nothing is recorded unless every stage worked.
A failing pipeline is no failure of this command. The results are its outputs: `reproduced`, `changed` and `passed`. The
last one is the verdict of all reviews: the pipelines ran, each model passed its gate, and production's model is not
better by more than is allowed. Where dvc.lock cannot be committed to the branch, it must also have been current.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from common import models
from common.command import run
from common.git import attempt, git
from deploy.ci import patches, pipeline, steps

_FAILED = re.compile(r"failed to reproduce '(?:models/([^/]+)/dvc\.yaml:)?[^']+'")
NO_CHANGES = "✅ No model changes: parameters, sources, metrics and reports of all models are as before.\n"
STALE = """\
> [!WARNING]
> `dvc.lock` is not current, and nothing can be committed to this branch from here: run `make repro MODEL=all` and
> commit `dvc.lock`, `metrics/`, `reports/` and `MODEL_CARD.md`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.ci.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, metavar="REV", help="what to compare with")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--model", default=models.ALL, metavar="NAME", help="reproduce one model (default: all of them)"
    )
    parser.add_argument("--refresh", action="store_true", help="read the data's sources again first")
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="a model that fails does not stop the others, as with --refresh",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="stages that may run at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--fork",
        action="store_true",
        help="without keys: production's model cannot be fetched, and dvc.lock cannot be committed",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "cluster"),
        default="local",
        help="where training runs: here, or as a job in the cluster that kubectl's configuration names",
    )
    arguments = parser.parse_args()
    selected = models.select(arguments.model or models.ALL, Path())
    folder: Path = arguments.output
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if arguments.engine == "cluster":
        from deploy.ci import cluster

        refresh = ["--refresh"] if arguments.refresh else []
        cluster.reproduce(folder, arguments.base, ["--model", arguments.model or models.ALL, *refresh])
        return

    keep_going = arguments.keep_going or arguments.refresh
    failures = _reproduce(selected, refresh=arguments.refresh, keep_going=keep_going, jobs=arguments.jobs)
    patch = patches.make(without=failures) if keep_going or not failures else b""
    (folder / "lock.patch").write_bytes(patch)
    reviewed = (
        failures if failures and not keep_going else _changed(selected, arguments.base) | failures.keys()
    )
    sections = {
        name: _review(folder, place, arguments.base, failures.get(name, ""), fork=arguments.fork)
        for name, place in selected.items()
        if name in reviewed
    }
    text = _joined({name: each for name, (each, _) in sections.items()}, named=len(models.find(Path())) > 1)
    passed = all(each for _, each in sections.values())
    if arguments.fork and patch:
        text, passed = f"{STALE}\n{text}", False
    (folder / "comment.md").write_text(text, encoding="utf-8")
    steps.summary(text)
    steps.output(reproduced=not failures, changed=bool(patch), passed=passed)


def _reproduce(selected: Mapping[str, Path], *, refresh: bool, keep_going: bool, jobs: int) -> dict[str, str]:
    """Run what changed; returns what DVC said for each model that failed."""
    if not keep_going:
        status, said = pipeline.reproduce(selected, jobs)
        return dict.fromkeys(_failed(selected, said), said) if status else {}
    failures = {}
    for name, folder in selected.items():
        status, said = 0, ""
        if refresh:
            fetch = f"{(folder / pipeline.PIPELINE_FILE).as_posix()}:fetch"
            status, said = pipeline.dvc("repro", "--single-item", "--force", fetch)
        if status == 0:
            status, said = pipeline.reproduce({name: folder}, jobs)
        if status:
            failures[name] = said
    return failures


def _failed(selected: Mapping[str, Path], said: str) -> list[str]:
    """The models whose stages failed, according to DVC; the first one if it names no stage."""
    first, *_ = selected
    found = {name or first for name in _FAILED.findall(said)}
    return [name for name in selected if name in found] or [first]


def _changed(selected: Mapping[str, Path], base: str) -> set[str]:
    """The models that the branch changed.

    Without a commit that the branch and its base have in common nothing is known, and the first one's review says why.
    """
    common = attempt("merge-base", "--", base, "HEAD").stdout.decode().strip()
    if not common:
        return {*list(selected)[:1]}
    return {name for name, place in selected.items() if _is_changed(common, place)}


def _is_changed(common: str, place: Path) -> bool:
    """Whether parameters, sources or results of a model differ from those of a commit.

    Its lock and its copy of dvc.yaml do not count: they change with shared code, too.
    """
    paths = [(place / each).as_posix() for each in ("params.yaml", "data/source", *patches.RESULTS)]
    return attempt("diff", "--quiet", common, "--", *paths).returncode != 0


def _joined(sections: dict[str, str], *, named: bool) -> str:
    """One comment: the text of the only model as it is, or a section for each with its name."""
    if not sections:
        return NO_CHANGES
    if not named:
        return next(iter(sections.values()))
    parts: list[str] = []
    for name, text in sections.items():
        mark = text.partition("\n")[0] if text.startswith("<!--") else ""
        # The next run finds its comment by the mark at its beginning.
        parts += [mark] if mark and not parts else []
        parts.append(f"## {name}\n\n{text.removeprefix(mark).strip()}")
    return "\n\n".join(parts) + "\n"


def _review(folder: Path, place: Path, base: str, failure: str, *, fork: bool) -> tuple[str, bool]:
    """The review's text and verdict of the model in a folder; if the review fails, its error and False."""
    output = (folder / "review" / (models.further(place) or "")).absolute()
    command = [sys.executable, "-m", "training.review", "--base", base, "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())} if models.further(place) else None
    if failure:
        log = (folder / f"failure-{models.name(place)}.log").absolute()
        log.write_text(failure, encoding="utf-8")
        command += ["--failure", str(log)]
    if fork:
        command.append("--no-production")
    if url := os.environ.get("RUN_URL"):
        command += ["--artifact-url", url]
    done = subprocess.run(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        return _no_review(done.stdout, failure), False
    text = (output / "review.md").read_text(encoding="utf-8")
    passed = json.loads((output / "review.json").read_bytes())["passed"]
    return text, passed is True and not failure


def _no_review(said: str, failure: str) -> str:
    commit = git("rev-parse", "--short=10", "HEAD").strip()
    parts = [f"### ❌ There is no review of {commit}", _block(pipeline.error_lines(said))]
    if failure:
        parts += ["The pipeline had failed before:", _block(pipeline.error_lines(failure))]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    """Text as it is; no run of backticks in it ends the block."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text.strip()}\n{fence}"


if __name__ == "__main__":
    run(main)
