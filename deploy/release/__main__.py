"""Write what runs where: every change is a commit to deploy/overlays, and every answer comes from git.

Nothing here touches a cluster: Argo CD follows the overlays. docs/releasing.md tells the whole way.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import command
from deploy.git import Git
from deploy.registry import Reference, Registry
from deploy.release import commands, publish, status
from deploy.release.overlay import DIGEST


def main() -> None:
    options = _parser().parse_args()
    git = Git.around(Path.cwd())
    match options.command:
        case "status":
            status.main(git, options.base, options.fetch, options.json)
        case "needed":
            sys.exit(0 if commands.needed(git, options.base) else 1)
        case _:
            with Registry() as registry:
                _write(options, git, registry)


def _write(options: argparse.Namespace, git: Git, registry: Registry) -> None:
    match options.command:
        case "set":
            commands.Set(
                git,
                registry,
                environment=options.environment,
                image=Reference.parse(options.image),
                branch=options.branch,
                push=options.push,
                force=options.force,
                check=options.require_check,
                tries=options.tries,
            ).run()
        case "promote":
            commands.Promote(
                git,
                registry,
                digest=options.digest,
                base=options.base,
                branch=options.branch,
                pull_request=options.pull_request,
            ).run()
        case "rollback":
            commands.Rollback(
                git,
                None if options.no_registry else registry,
                environment=options.environment,
                digest=options.to,
                base=options.base,
                branch=options.branch,
                pull_request=options.pull_request,
            ).run()


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m deploy.release", description=__doc__, formatter_class=form
    )
    parsers = parser.add_subparsers(dest="command", required=True, title="commands", metavar="COMMAND")

    def add(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return parsers.add_parser(name, help=summary, description=description, formatter_class=form)

    one = add("set", "let staging run an image that the registry has", SET)
    one.add_argument("environment", metavar="ENV", help="a folder of deploy/overlays, as `staging`")
    one.add_argument(
        "--image", required=True, metavar="REGISTRY/NAME@sha256:…", help="the image, by its digest"
    )
    one.add_argument(
        "--push",
        action="store_true",
        help="commit on top of origin's branch and push; files here stay as they are",
    )
    one.add_argument(
        "--branch",
        help="with --push: the branch to push to (default: the one checked out, else origin's default)",
    )
    one.add_argument(
        "--require-check",
        metavar="NAME",
        help="refuse unless this check on GitHub is green at the image's revision",
    )
    one.add_argument(
        "--force",
        action="store_true",
        help="release also what is older, was taken back, or does not match its metrics",
    )
    one.add_argument(
        "--tries",
        type=_positive,
        default=publish.TRIES,
        metavar="N",
        help="pushes to try while others are faster (default: %(default)s)",
    )

    one = add("promote", "propose that production runs what staging runs", PROMOTE)
    one.add_argument(
        "--digest", type=_digest, metavar="sha256:…", help="refuse unless this is what staging runs"
    )
    _proposing(one)

    one = add("rollback", "propose that production runs what it ran before", ROLLBACK)
    one.add_argument(
        "environment", metavar="ENV", nargs="?", default=commands.PRODUCTION, help="default: production"
    )
    one.add_argument(
        "--to",
        metavar="DIGEST",
        help="a digest that ran there, or its first 7 digits or more (default: the last good one)",
    )
    one.add_argument(
        "--no-registry",
        action="store_true",
        help="do not ask whether the image still exists, where the registry cannot be reached",
    )
    _proposing(one)

    one = add("status", "show what runs where, since when and by whom", STATUS)
    one.add_argument("--json", action="store_true", help="for programs; with all deployments there were")
    one.add_argument("--fetch", action="store_true", help="ask origin first")
    _base(one)

    one = add("needed", "say whether the image at HEAD differs from what staging runs", NEEDED)
    _base(one)
    return parser


def _proposing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pull-request",
        action="store_true",
        help="push the branch and open its pull request, or bring the open one up to date",
    )
    parser.add_argument(
        "--branch", help="the name of the branch to write (default: made from the digest, so the same again)"
    )
    _base(parser)


def _base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base", metavar="BRANCH", help="the branch that deploys (default: origin's default branch)"
    )


def _digest(text: str) -> str:
    if not DIGEST.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no digest: it must be sha256: and 64 of 0-9a-f")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


SET = """\
Let an environment run an image. Revision and model version come from the labels that the image has in the registry.

Refused is an image that the registry does not have, that was built from what was not merged, that is older than what
runs, or that was rolled back from. Setting what already runs writes nothing and succeeds.

Without --push, the overlay in the working tree is edited. With it, the change is committed on top of origin's branch
and pushed, again and again while others push too. If one of them released something newer, this one ends without a
change."""
PROMOTE = """\
Propose that production runs the image that staging runs, as origin has it now.

Writes a commit on a branch of its own; --pull-request pushes it and opens the pull request, whose text compares the
two models. The same promotion again finds the same pull request. Its review is the approval."""
ROLLBACK = """\
Propose that an environment runs what it ran before, with the version and revision of then. Nothing is built.

What was rolled back from does not count as good: rolling back twice goes further back, not forth again."""
STATUS = """\
Show what every environment runs, since when and by whom, and which commits staging has and production has not.

Read from git alone: what origin's branch said at the last fetch. Whether the cluster has followed, Argo CD knows."""
NEEDED = """\
Say whether what goes into the image differs between HEAD and the revision that staging runs, and why.

Exit status: 0 when a release is needed, 1 when not, 2 when it cannot be told."""


def run() -> None:
    """Run the tool and end the process."""
    # 1 is an answer of `needed`, so there an error must be another.
    command.run(main, status=2 if sys.argv[1:2] == ["needed"] else 1)


if __name__ == "__main__":
    run()
