"""What a job of GitLab CI or Jenkins does before others: GitHub Actions has actions for it.

push       let `git push` in this clone use the token in GH_TOKEN or GITLAB_TOKEN, whichever the forge takes
aws ROLE   print what makes AWS's programs take a role, for `eval`; nothing without a role
"""

from __future__ import annotations

import argparse

from common.command import run
from deploy import forge
from deploy.forge import identity


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m deploy.forge", description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("push", help="let git push with the job's token")
    commands.add_parser("aws", help="print what makes AWS's programs take a role").add_argument("role")
    options = parser.parse_args()
    if options.command == "push":
        identity.let_git_push(*forge.current().pusher)
    else:
        print(identity.aws(options.role), end="")


if __name__ == "__main__":
    run(main)
