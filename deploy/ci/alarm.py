"""Keeps one issue open while a workflow fails: opens it, comments on further failures, and closes it at success.

It is about a run that has ended, and knows from the forge which jobs of it failed.
"""

from __future__ import annotations

import argparse

from common.command import run
from deploy import forge
from deploy.forge import EndedRun

LABEL = "alarm"
_BODY = "{}\n\nThe run's page says what failed. This issue is closed by the first run that succeeds.\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.alarm", description=__doc__)
    parser.add_argument("--run", type=int, required=True, metavar="ID", help="the run that has ended")
    print(tell(parser.parse_args().run))


def tell(number: int) -> str:
    """Open, comment on or close the issue about a run, and return what was done. A cancelled run changes nothing.

    Raises:
        ForgeError: the forge refuses.
    """
    host = forge.current()
    ended = host.ended_run(number)
    issue = host.find_issue(title(ended), LABEL)
    if ended.conclusion == "failure":
        what = f"{_failures(ended)}: {ended.address}"
        if issue is None:
            return f"opened {host.open_issue(title(ended), _BODY.format(what), LABEL)}"
        host.comment_issue(issue["number"], f"Again: {what}")
        return f"added to {issue['address']}"
    if issue is None or ended.conclusion != "success":
        return "nothing to tell"
    host.comment_issue(issue["number"], f"All is well again: {ended.address}")
    host.close_issue(issue["number"])
    return f"closed {issue['address']}"


def title(ended: EndedRun) -> str:
    """By which the issue is found again. After a push a workflow may have other jobs than by schedule."""
    return f"Workflow {ended.name} fails{' after a push' if ended.after_push else ''}"


def _failures(ended: EndedRun) -> str:
    if not ended.failed:
        return f"no job could start ({ended.said})"
    return f"`{'`, `'.join(ended.failed)}` failed"


if __name__ == "__main__":
    run(main)
