"""Plays the way from a pull request to production and back on this machine, with the real workflow files.

The S3 server (SeaweedFS), the registry (Docker's), the image builds, the containers and the runs of the workflow files
(act) are real; a bare git repository is the origin. GitHub's API and the actions of other repositories are played by
small stand-ins, listed at the end. Nothing outside a temporary folder is changed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import yaml

from deploy.rehearsal import containers
from deploy.rehearsal.runner import STAND_INS, WorkflowError
from deploy.rehearsal.story import Story, StoryError
from deploy.rehearsal.world import CommandError, world

TOOLS = {"act": "`make setup` brings it", "gh": "`make setup` brings it", **containers.TOOLS}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.rehearsal", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="keep the folder, with the logs of every workflow"
    )
    arguments = parser.parse_args()
    missing = [f"{tool} ({remedy})" for tool, remedy in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        print(f"error: the rehearsal needs {', '.join(missing)}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="espalier-rehearsal-"))
    failed = True
    try:
        failed = not rehearse(folder)
    finally:
        if arguments.keep or failed:
            print(f"\nEverything is in {folder}; logs are runs/*/log.jsonl")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def rehearse(folder: Path) -> bool:
    """Play every step, report its time and findings, and return whether all succeeded."""
    started = time.monotonic()
    with world(folder) as made:
        _say(time.monotonic() - started, "git, S3, a registry and the played GitHub are up", "")
        story = Story(made)
        for title, step in story.steps():
            if not _play(title, step):
                return False
        played = sorted(
            {
                yaml.safe_load(file.read_text(encoding="utf-8"))["name"]
                for file in STAND_INS.glob("*/*/action.yml")
            }
        )
        if made.github.errors:
            print(
                f"error: the played GitHub got requests that it does not play: {made.github.errors}",
                file=sys.stderr,
            )
            return False
    total = time.monotonic() - started
    print(f"\n{len(story.steps())} steps, {made.runs} runs of workflows, {total:.0f} s")
    print(f"Played, not real: GitHub's API; {', '.join(played)}")
    return True


def _play(title: str, step: Callable[[], str]) -> bool:
    started = time.monotonic()
    try:
        found = step()
    except (StoryError, WorkflowError, CommandError) as error:
        print(f"\nFAILED after {time.monotonic() - started:.1f} s: {title}\n{error}", file=sys.stderr)
        return False
    except Exception:
        print(f"\nFAILED after {time.monotonic() - started:.1f} s: {title}", file=sys.stderr)
        traceback.print_exc()
        return False
    _say(time.monotonic() - started, title, found)
    return True


def _say(seconds: float, title: str, found: str) -> None:
    print(f"{seconds:6.1f} s  {title}" + (f"\n{'':10}{found}" if found else ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())
