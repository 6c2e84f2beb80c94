"""Reproduces what a branch changed and leaves, in one folder, everything that the next steps need.

lock.patch   what changed in git: dvc.lock, metrics, reports; empty when the lock was current
comment.md   what came out, for the pull request: the review, or why there is none
review/      what training.review writes: the review's data and its plots

It fails only for a fault of its own. What came out is in its outputs: `reproduced`, `changed`, and `passed`, which is
true when everything worked and production's model is not better by more than the gate allows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.ci import patches, pipeline, steps
from deploy.ci.git import git
from deploy.errors import run


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    status: int
    text: str

    @property
    def worked(self) -> bool:
        return self.status == 0

    @property
    def error(self) -> str:
        lines = self.text.strip().splitlines()
        return "\n".join(pipeline.errors(self.text) or lines[-10:] or ["it says nothing"])


@dataclass(frozen=True)
class Outcome:
    """What the parts came to; None for a part that was not reached."""

    repro: Said
    review: Said | None
    gate: Said | None
    stale: bool
    """The branch should have been current, and was not."""

    @property
    def passed(self) -> bool:
        parts = (self.repro, self.review, self.gate)
        return all(part is not None and part.worked for part in parts) and not self.stale


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.ci.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, metavar="REV", help="what to compare with")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--refresh", action="store_true", help="read the data's source again first")
    parser.add_argument(
        "--expect-current",
        action="store_true",
        help="nobody can commit dvc.lock for this branch: it must be current",
    )
    arguments = parser.parse_args()
    folder: Path = arguments.output
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    repro = _reproduce(refresh=arguments.refresh)
    patch = patches.make() if repro.worked else b""
    stale = arguments.expect_current and bool(patch)
    review = gate = None
    if repro.worked:
        review = _python("training.review", "--base", arguments.base, "--output", str(folder / "review"))
        gate = _python("training.production", "--at", arguments.base)
    outcome = Outcome(repro, review, gate, stale)

    (folder / "lock.patch").write_bytes(patch)
    text = comment(outcome, _review(folder), git("rev-parse", "HEAD").strip(), os.environ.get("RUN_URL", ""))
    (folder / "comment.md").write_text(text, encoding="utf-8")
    steps.summary(text)
    steps.output(reproduced=repro.worked, changed=bool(patch), passed=outcome.passed)


def comment(outcome: Outcome, review: str, commit: str, run_url: str = "") -> str:
    """What came out, in Markdown: the verdict first."""
    where = f"{commit[:10]}, [run]({run_url})" if run_url else commit[:10]
    parts = []
    if not outcome.repro.worked:
        parts += [f"### ❌ `dvc repro` failed ({where})", _block(outcome.repro.error)]
    else:
        verdict = "✅ reproduced" if outcome.passed else "❌ not fit to be merged"
        parts.append(f"### {verdict} ({where})")
    if outcome.stale:
        parts.append(
            "`dvc.lock` is not current. Nothing can be committed to this branch from here: "
            "run `make repro` and commit `dvc.lock`, `metrics/`, `reports/` and `MODEL_CARD.md`."
        )
    if outcome.gate is not None and not outcome.gate.worked:
        parts += ["**The gate against production says no:**", _block(outcome.gate.error)]
    if outcome.review is not None and not outcome.review.worked:
        parts += ["There is no review:", _block(outcome.review.error)]
    elif review:
        parts.append(review.strip())
    return "\n\n".join(parts) + "\n"


def _reproduce(*, refresh: bool) -> Said:
    if refresh:
        status, said = pipeline.dvc("repro", "--single-item", "--force", "fetch")
        if status:
            return Said(status, said)
    return Said(*pipeline.reproduce())


def _python(module: str, *arguments: str) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    print(done.stdout, end="", flush=True)
    return Said(done.returncode, done.stdout)


def _review(folder: Path) -> str:
    file = folder / "review" / "review.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _block(text: str) -> str:
    """Text as it is; no run of backticks in it ends the block."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text.strip()}\n{fence}"


if __name__ == "__main__":
    run(main)
