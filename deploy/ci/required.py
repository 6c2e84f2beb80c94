"""The required check of a workflow: passes when every job that it needs passed, or was allowed to be skipped.

NEEDS holds the workflow's `toJSON(needs)`. Branch rules require this check alone, because a rule on a job would wait for
ever when a condition skips the job. With --decided-by, a job's output `jobs` names those that must have passed.
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
    parser.add_argument(
        "--decided-by",
        metavar="JOB",
        help="the job whose output `jobs` lists the others that must have passed",
    )
    arguments = parser.parse_args()
    needs = steps.environment("NEEDS")
    results = read(needs)
    for job, result in results.items():
        print(f"{job}: {result}")
    may_skip, one_of = arguments.may_skip, arguments.one_of
    if arguments.decided_by:
        decided = decision(needs, arguments.decided_by)
        may_skip = [*may_skip, *one_of, *(results.keys() - decided - {arguments.decided_by})]
        one_of = one_of if decided & set(one_of) else []
    if faults := judge(results, may_skip, one_of):
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


def decision(needs: str, job: str) -> set[str]:
    """The jobs in a job's output `jobs`; without the output, every job, because it failed or was skipped.

    Raises:
        DeployError: the output is no list of jobs that NEEDS has.
    """
    document = json.loads(needs)
    text = document.get(job, {}).get("outputs", {}).get("jobs", "")
    if not text:
        return set(document)
    try:
        found = {str(each) for each in json.loads(text)}
    except (ValueError, TypeError):
        found = set()
    if not found or not found <= document.keys():
        raise DeployError(f"the output `jobs` of {job} names no jobs that this check needs: {text}")
    return found


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
