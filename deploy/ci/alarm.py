"""Keeps one issue open while a workflow fails: opens it, comments on further failures, and closes it at success.

NEEDS holds the workflow's `toJSON(needs)`, as for deploy.ci.required.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from common.command import run
from deploy import github
from deploy.ci import required, steps

LABEL = "alarm"
_BODY = "{}\n\nThe run's page says what failed. This issue is closed by the first run that succeeds.\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.alarm", description=__doc__)
    parser.add_argument("--title", required=True, help="the issue's title, by which it is found again")
    parser.add_argument("--run-url", required=True, help="the run's page")
    arguments = parser.parse_args()
    print(tell(arguments.title, required.read(steps.environment("NEEDS")), arguments.run_url))


def tell(title: str, results: Mapping[str, str], run_url: str) -> str:
    """Open, comment on or close the issue, and return what was done. A cancelled run changes nothing."""
    failed = sorted(job for job, result in results.items() if result == "failure")
    issue = _find(title)
    if failed:
        what = f"`{'`, `'.join(failed)}` failed: {run_url}"
        if issue is None:
            opened = github.send("POST", "issues", title=title, body=_BODY.format(what), labels=[LABEL])
            return f"opened {opened['html_url']}"
        github.send("POST", f"issues/{issue['number']}/comments", body=f"Again: {what}")
        return f"added to {issue['html_url']}"
    if issue is None or "success" not in results.values():
        return "nothing to tell"
    github.send("POST", f"issues/{issue['number']}/comments", body=f"All is well again: {run_url}")
    github.send("PATCH", f"issues/{issue['number']}", state="closed")
    return f"closed {issue['html_url']}"


def _find(title: str) -> dict[str, Any] | None:
    for issue in github.get_all("issues", state="open", labels=LABEL):
        if issue["title"] == title and issue["user"]["type"] == "Bot" and "pull_request" not in issue:
            return dict(issue)
    return None


if __name__ == "__main__":
    run(main)
