"""The required check of a workflow: passes when every job that it needs passed, or was allowed to be skipped.

NEEDS holds the workflow's `toJSON(needs)`. Branch rules require this check alone, because a rule on a job would wait for
ever when a condition skips the job.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping

from common.command import run
from deploy.ci import steps
from deploy.errors import DeployError

PASSED, SKIPPED = "success", "skipped"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.required", description=__doc__)
    parser.add_argument("--may-skip", nargs="*", default=[], metavar="JOB", help="may be skipped")
    parser.add_argument(
        "--one-of", nargs="*", default=[], metavar="JOB", help="one of these must have passed"
    )
    arguments = parser.parse_args()
    results = read(steps.environment("NEEDS"))
    for job, result in results.items():
        print(f"{job}: {result}")
    if faults := judge(results, arguments.may_skip, arguments.one_of):
        raise DeployError("; ".join(faults))


def read(needs: str) -> dict[str, str]:
    """The result of each job: success, failure, cancelled or skipped.

    Raises:
        DeployError: the text has another form than `toJSON(needs)`.
    """
    try:
        results = {job: str(need["result"]) for job, need in json.loads(needs).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeployError("NEEDS is not what toJSON(needs) gives") from None
    if not results:
        raise DeployError("NEEDS names no job, so this check would check nothing")
    return results


def judge(results: Mapping[str, str], may_skip: Collection[str], one_of: Collection[str]) -> list[str]:
    """The reasons against passing."""
    faults = [f"no job is called {job}" for job in sorted({*may_skip, *one_of} - results.keys())]
    for job, result in results.items():
        if result != PASSED and not (result == SKIPPED and job in may_skip):
            faults.append(f"{job}: {result}")
    if one_of and not any(results.get(job) == PASSED for job in one_of):
        faults.append(f"none of {', '.join(one_of)} has passed")
    return faults


if __name__ == "__main__":
    run(main)
