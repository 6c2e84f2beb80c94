"""Push to the DVC remote and pull from it, with every object compared with its name.

pull    bring outputs here that dvc.lock names: all below this folder, or those of TARGETS; replaced objects are refused
push    add what the remote lacks; nothing there is overwritten
check   read the whole remote and name each object whose content is not what its name says
repair  replace those by the right content, from the cache or computed again; needs the right to delete objects
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Collection, Iterable

from common.lock import Entry
from training.base import cli
from training.remote.objects import MissingError, Objects, RemoteError, ReplacedError

log = logging.getLogger(__name__)


def main() -> None:
    parser = cli.parser("training.remote", __doc__)
    parser.add_argument("command", choices=("pull", "push", "check", "repair"))
    parser.add_argument("--remote", metavar="NAME", help="another remote than the default one")
    parser.add_argument("targets", nargs="*", help="of pull and push: an output, a folder, or a dvc.yaml")
    arguments = parser.parse_args()
    # It says where it found credentials.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    objects = Objects(arguments.remote)
    if arguments.command == "pull":
        pull(arguments.targets, objects=objects)
    elif arguments.command == "push":
        push(arguments.targets, objects)
    elif arguments.targets:
        parser.error(f"{arguments.command} takes no targets: it is about the whole remote")
    else:
        {"check": check, "repair": repair}[arguments.command](objects)


def pull(
    targets: Collection[str] = (), *, allow_missing: bool = False, objects: Objects | None = None
) -> None:
    """Bring outputs into the working directory, each of them whole or not at all.

    Raises:
        MissingError: the remote lacks some, and that is not allowed; the others are here.
        ReplacedError: the remote has other content; the working directory and the cache are as before.
        RemoteError: the remote does not give them.
    """
    from dvc.exceptions import DvcException

    objects = objects or Objects()
    entries = objects.outputs(targets)
    missing = objects.fetch(entries)
    lacking = {each.path for each in missing}
    # A file of a folder is below the folder's path.
    whole = [
        each.path
        for each in entries
        if each.path not in lacking and not any(path.startswith(f"{each.path}/") for path in lacking)
    ]
    try:
        if whole:
            objects.repo.checkout(whole, allow_missing=True)
    except DvcException as error:
        raise RemoteError(f"DVC cannot write the outputs: {' '.join(str(error).split())}") from None
    log.info("%s outputs are as dvc.lock says", f"{len(whole):,}")
    if missing and not allow_missing:
        raise MissingError(
            f"the remote lacks {_paths(missing)}: run `make push` where they are, or `dvc repro`"
        )


def push(targets: Collection[str], objects: Objects) -> None:
    """Add to the remote what it lacks.

    Raises:
        RemoteError: there is no remote, or it refuses something.
    """
    pushed, absent = objects.push(objects.outputs(targets))
    if absent:
        log.warning("warning: neither here nor in the remote: %s; `dvc repro` computes them", _paths(absent))
    log.info("%s objects pushed", f"{pushed:,}")


def check(objects: Objects) -> None:
    """Compare all objects with their names.

    Raises:
        ReplacedError: some have other content.
    """
    names = _names(objects)
    if replaced := objects.replaced():
        listed = "".join(f"\n  {objects.address(md5)}  {_known(names, md5)}" for md5 in replaced)
        raise ReplacedError(
            f"{len(replaced)} objects of the remote have other content than their names say: "
            f"`python -m training.remote repair` puts them right{listed}"
        )
    log.info("every object of the remote has the content that its name says")


def repair(objects: Objects) -> None:
    """Put right content in the place of other.

    Raises:
        RemoteError: the right content is not to be had, or this identity may not delete.
    """
    names = _names(objects)
    replaced = [Entry(_known(names, md5), md5) for md5 in objects.replaced()]
    if not all(objects.sound(each) for each in replaced):
        log.info("the right content is not here: computing it")
        subprocess.run([sys.executable, "-m", "dvc", "repro", "--all-pipelines"], check=False)
    lost = []
    for each in replaced:
        file = objects.sound(each)
        if file is None:
            lost.append(each)
            continue
        try:
            objects.remove(each)
        except RemoteError as error:
            raise RemoteError(
                f"{objects.address(each.md5)} has to be removed first, and a workflow's role may not: run this with "
                f"the right to delete objects (s3:DeleteObject); a bucket with versions keeps the old content ({error})"
            ) from None
        objects.add(each, file)
        log.info("repaired %s  %s", objects.address(each.md5), each.path)
    if lost:
        raise RemoteError(
            f"{len(lost)} objects are not repaired, because their content is not here and this commit does not compute "
            "it. Check out a commit whose dvc.lock names them, and repair again; or delete them, and whoever needs "
            "them computes them:" + "".join(f"\n  {objects.address(each.md5)}" for each in lost)
        )
    if not replaced:
        log.info("every object of the remote has the content that its name says")


def _names(objects: Objects) -> dict[str, list[str]]:
    """The paths that this commit gives objects."""
    found: dict[str, list[str]] = {}
    for each in objects.outputs():
        found.setdefault(each.md5, []).append(each.path)
        if each.md5.endswith(".dir"):
            try:
                members = objects.members(each).values()
            except (MissingError, ReplacedError):
                continue
            for member in members:
                found.setdefault(member.md5, []).append(member.path)
    return found


def _known(names: dict[str, list[str]], md5: str) -> str:
    return ", ".join(names[md5]) if md5 in names else "(this commit does not name it)"


def _paths(entries: Iterable[Entry]) -> str:
    paths = [each.path for each in entries]
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
