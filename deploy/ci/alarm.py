"""Keeps one issue open while a workflow fails: opens it, comments on further failures, and closes it at success.

It is about a run that has ended, and knows from GitHub which jobs of it failed.
"""

from __future__ import annotations

import argparse
from typing import Any

from common.command import run
from deploy import github

LABEL = "alarm"
FAILED = ("failure", "timed_out", "startup_failure")
_BODY = "{}\n\nThe run's page says what failed. This issue is closed by the first run that succeeds.\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.alarm", description=__doc__)
    parser.add_argument("--run", type=int, required=True, metavar="ID", help="the run that has ended")
    print(tell(github.get(f"actions/runs/{parser.parse_args().run}")))


def tell(ended: github.Json) -> str:
    """Open, comment on or close the issue, and return what was done. A cancelled run changes nothing.

    Raises:
        GitHubError: GitHub refuses.
    """
    address, conclusion = ended["html_url"], ended["conclusion"]
    issue = _find(title(ended))
    if conclusion in FAILED:
        what = f"{_failures(ended)}: {address}"
        if issue is None:
            body = _BODY.format(what)
            opened = github.send("POST", "issues", title=title(ended), body=body, labels=[LABEL])
            return f"opened {opened['html_url']}"
        github.send("POST", f"issues/{issue['number']}/comments", body=f"Again: {what}")
        return f"added to {issue['html_url']}"
    if issue is None or conclusion != "success":
        return "nothing to tell"
    github.send("POST", f"issues/{issue['number']}/comments", body=f"All is well again: {address}")
    github.send("PATCH", f"issues/{issue['number']}", state="closed")
    return f"closed {issue['html_url']}"


def title(ended: github.Json) -> str:
    """By which the issue is found again. After a push a workflow may have other jobs than by schedule."""
    return f"Workflow {ended['name']} fails{' after a push' if ended['event'] == 'push' else ''}"


def _failures(ended: github.Json) -> str:
    answer = github.get(f"actions/runs/{int(ended['id'])}/jobs", filter="latest", per_page=100)
    failed = sorted(each["name"] for each in answer["jobs"] if each["conclusion"] in FAILED)
    return f"`{'`, `'.join(failed)}` failed" if failed else f"no job could start ({ended['conclusion']})"


def _find(title: str) -> dict[str, Any] | None:
    for issue in github.get_all("issues", state="open", labels=LABEL):
        if issue["title"] == title and issue["user"]["type"] == "Bot" and "pull_request" not in issue:
            return dict(issue)
    return None


if __name__ == "__main__":
    run(main)
