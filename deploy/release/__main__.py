"""Change and show what runs where: every change is a commit to deploy/overlays, and every answer comes from git.

No command touches a cluster: Argo CD follows the overlays. Commands are about the first model unless --model names
another. docs/releasing.md describes the whole way.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from common import command, models, overlays
from deploy.git import Git
from deploy.registry import Reference, Registry
from deploy.release import commands, publish, status, waves
from deploy.release.commands import Promote, Proposing, Rollback, Set

LONGEST_REASON = 300
_WRITERS: dict[str, Callable[..., Set | Proposing]] = {
    "set": Set,
    "promote": Promote,
    "rollback": Rollback,
}


def main() -> None:
    options = vars(_parser().parse_args())
    git = Git.around(Path.cwd())
    if options.get("model") == "":
        options["model"] = models.name(git.top)
    if options["command"] == "set" and options["environment"] is None:
        options["environment"] = waves.read(git, git.require("HEAD")).first
    match options.pop("command"):
        case "status":
            status.main(git, **options)
        case "needed":
            found = commands.needed(git, options["base"])
            if options["as_json"]:
                print(json.dumps(found))
            sys.exit(0 if found else 1)
        case "mirror":
            # Here, because it takes a second to import.
            from deploy.release.mirror import mirror

            mirror(git, **options)
        case command_:
            with Registry() as registry:
                _WRITERS[command_](git, registry, **options).run()


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m deploy.release", description=__doc__, formatter_class=form
    )
    parsers = parser.add_subparsers(dest="command", required=True, title="commands", metavar="COMMAND")

    def add(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return parsers.add_parser(name, help=summary, description=description, formatter_class=form)

    one = add("set", "let the environment of wave 0 run an image that the registry has", SET)
    one.add_argument(
        "environment",
        metavar="ENV",
        nargs="?",
        help="a folder of deploy/overlays (default: the one of wave 0)",
    )
    images = one.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "--image",
        dest="images",
        type=Reference.parse,
        nargs="+",
        metavar="IMAGE",
        help="REGISTRY/NAME@sha256:…, whose labels name the model; each of several becomes a commit",
    )
    images.add_argument(
        "--record",
        dest="images",
        type=_pushed,
        nargs="+",
        metavar="FILE",
        help="the same, from what `python -m deploy.image push` wrote to build/images/",
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
        dest="check",
        metavar="NAME",
        help="refuse unless this check on GitHub or GitLab is green at the image's revision",
    )
    one.add_argument(
        "--force",
        action="store_true",
        help="also release an image that is older, was taken back, or does not match its metrics",
    )
    one.add_argument(
        "--tries",
        type=_positive,
        default=publish.TRIES,
        metavar="N",
        help="pushes to try while others are faster (default: %(default)s)",
    )

    one = add("promote", "propose that an environment runs what the wave before runs", PROMOTE)
    one.add_argument(
        "environment", metavar="ENV", nargs="?", help="of wave 1 or later (default: the first of wave 1)"
    )
    one.add_argument(
        "--digest", type=_digest, metavar="sha256:…", help="refuse unless this is what the wave before runs"
    )
    one.add_argument(
        "--prometheus",
        metavar="URL",
        default=os.environ.get("PROMETHEUS_URL") or None,
        help="the Prometheus that watches the wave before (PROMETHEUS_URL; a token in PROMETHEUS_TOKEN)",
    )
    one.add_argument(
        "--without-evidence",
        type=_reason,
        metavar="REASON",
        help="promote although evidence is missing; the commit and the pull request record the reason",
    )
    _proposing(one)

    one = add("rollback", "propose that an environment runs what it ran before", ROLLBACK)
    one.add_argument("environment", metavar="ENV", nargs="?", help="default: the first of wave 1")
    one.add_argument(
        "--to",
        dest="digest",
        metavar="DIGEST",
        help="a digest that ran there, or its first 7 digits or more (default: the last good one)",
    )
    one.add_argument(
        "--no-registry",
        dest="ask_registry",
        action="store_false",
        help="do not ask whether the image still exists, where the registry cannot be reached",
    )
    _proposing(one)

    one = add("status", "show what runs where, since when and by whom", STATUS)
    one.add_argument(
        "--json", dest="as_json", action="store_true", help="for programs; with all former deployments"
    )
    one.add_argument("--fetch", action="store_true", help="ask origin first")
    one.add_argument(
        "--model",
        metavar="NAME",
        default=models.ALL,
        help="this one alone, with the commits that each environment lacks (default: all)",
    )
    _base(one)

    one = add("mirror", "let MLflow's registry show what runs where", MIRROR)
    one.add_argument("--model", metavar="NAME", default=models.ALL, help="this one alone (default: all)")
    one.add_argument(
        "--no-fetch",
        dest="fetch",
        action="store_false",
        help="do not ask origin: this clone was made just now, and may have no login",
    )
    _base(one)

    one = add("needed", "say which models' images at HEAD differ from what the first wave runs", NEEDED)
    one.add_argument(
        "--json", dest="as_json", action="store_true", help="print their names as the last line, for programs"
    )
    _base(one)
    return parser


def _proposing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", default="", help="the model (default: the first)")
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
    if not overlays.DIGEST.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no digest: it must be sha256: and 64 of 0-9a-f")
    return text


def _reason(text: str) -> str:
    """On one line, so that it is one trailer of a commit."""
    reason = " ".join(text.split())
    if not reason:
        raise argparse.ArgumentTypeError("the reason is empty")
    return reason[:LONGEST_REASON]


def _pushed(file: str) -> Reference:
    """The image in a record of `deploy.image`."""
    try:
        return Reference.parse(json.loads(Path(file).read_text(encoding="utf-8"))["pushed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise argparse.ArgumentTypeError(f"{file} is no record of an image that was pushed") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


SET = """\
Let an environment run an image. Its labels in the registry name the model, its version and the revision.

An image is refused if the registry lacks it, if its revision is not merged, if it is older than the one that runs, or
if the environment was rolled back from it. Setting the image that already runs writes nothing and succeeds.

Without --push, the release file in the working tree is written. With it, the change is committed on top of origin's
branch and pushed, and both are repeated while others push too. If one of them released a newer image, nothing is
changed."""
PROMOTE = """\
Propose that an environment runs the image of a model that the wave before runs, as origin has it now. The waves are
in deploy/environments.yaml: what is built runs in wave 0 first.

Prometheus must show that each environment of the wave before runs this image alone, that its canary succeeded, that
it has run for the minutes in deploy/promotion.yaml, and that no alert pages for it. The pull request lists what was
found.

Writes a commit on a branch of its own; --pull-request pushes it and opens the pull request, whose text compares the
two models. The same promotion again finds the same pull request. Its review is the approval."""
ROLLBACK = """\
Propose that an environment runs what it ran of a model before, with its version and revision. Nothing is built.

A release that was rolled back is not restored: rolling back twice goes further back."""
STATUS = """\
Show what every environment runs of every model, since when and by whom, and how far it is behind the first wave.

It reads git alone: origin's branch at the last fetch. Argo CD shows whether the cluster has followed."""
MIRROR = """\
Let MLflow's model registry show what origin's branch says: a version for each bundle that runs, an alias for each
environment, and `champion` for the last wave's. MLFLOW_TRACKING_URI names the server; without it, the store in mlruns/
is used. Aliases with other names stay as they are.

A bundle that the registry lacks is taken from DVC's cache or remote. The registry decides nothing: git does."""
NEEDED = """\
Say for each model whether the inputs of its image differ between HEAD and the revision that runs in the first
wave, and which.

Exit status: 0 when a release is needed, 1 when not, 2 on errors."""


def run() -> None:
    """Run the tool and end the process."""
    # `needed` answers with 1, so its errors need another status.
    command.run(main, status=2 if sys.argv[1:2] == ["needed"] else 1)


if __name__ == "__main__":
    run()
