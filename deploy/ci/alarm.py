"""One issue for as long as something fails: opened at the first failure, added to at each other, closed at success.

NEEDS holds the workflow's `toJSON(needs)`, as for deploy.ci.gate.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from common.command import run
from deploy import github
from deploy.ci import gate, steps

LABEL = "alarm"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.alarm", description=__doc__)
    parser.add_argument("--title", required=True, help="of the issue; finds it again")
    parser.add_argument("--run-url", required=True, help="where to look")
    arguments = parser.parse_args()
    print(tell(arguments.title, gate.read(steps.environment("NEEDS")), arguments.run_url))


def tell(title: str, results: Mapping[str, str], run_url: str) -> str:
    """Open, add to or close the issue, and say what was done. A cancelled run says nothing about anything."""
    failed = sorted(job for job, result in results.items() if result == "failure")
    issue = _find(title)
    if failed:
        what = f"`{'`, `'.join(failed)}` failed: {run_url}"
        if issue is None:
            opened = github.send("POST", "issues", title=title, body=f"{_body(what)}", labels=[LABEL])
            return f"opened {opened['html_url']}"
        github.send("POST", f"issues/{issue['number']}/comments", body=f"Again: {what}")
        return f"added to {issue['html_url']}"
    if issue is None or "success" not in results.values():
        return "nothing to tell"
    github.send("POST", f"issues/{issue['number']}/comments", body=f"All is well again: {run_url}")
    github.send("PATCH", f"issues/{issue['number']}", state="closed")
    return f"closed {issue['html_url']}"


def _body(what: str) -> str:
    return (
        f"{what}\n\nThe run's page says what failed. This issue is closed by the first run that succeeds.\n"
    )


def _find(title: str) -> dict[str, Any] | None:
    for issue in github.get_all("issues", state="open", labels=LABEL):
        if issue["title"] == title and issue["user"]["type"] == "Bot" and "pull_request" not in issue:
            return dict(issue)
    return None


if __name__ == "__main__":
    run(main)
