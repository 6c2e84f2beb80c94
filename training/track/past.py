"""Brings back what earlier commits of this model had for a tracker, for one that was off when they were made."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path

from common.git import git
from common.lock import LOCK_FILE, Entry
from training.base.errors import DataError
from training.data.dataset import EXPLORE
from training.production.revisions import Revision, Store, UnreachableError
from training.results.board import LEADERBOARD_FILE
from training.results.report import CANDIDATES
from training.track.plan import BUNDLE, Plan, Run, read_plan


def revisions(since: Revision) -> Iterator[Revision]:
    """`since` and the later commits of this branch that changed the model's results, the newest first."""
    changed = git("log", "--first-parent", "--format=%H", f"{since.commit}..HEAD", "--", LOCK_FILE).split()
    newer = None
    for revision in [*map(Revision, changed), since]:
        try:
            results = revision.file(LEADERBOARD_FILE.as_posix()), _outputs(revision)
        except UnreachableError:
            results = None  # `plan_of` says why
        if results is None or results != newer:
            yield revision
            newer = results


@contextmanager
def plan_of(revision: Revision, name: str) -> Iterator[Plan]:
    """What there was to track at a revision. Its files exist, and are the working directory's, until the block ends.

    Raises:
        UnreachableError: neither this clone nor the remote has it.
        ReplacedError: the remote has other content under its hash.
        DataError, BundleError: it is of a version of this code that wrote other files.
    """
    board = revision.file(LEADERBOARD_FILE.as_posix())
    if board is None:
        raise UnreachableError(f"revision {revision.short} has no {LEADERBOARD_FILE}")
    made = float(git("show", "--no-patch", "--format=%ct", revision.commit))
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        _write(top / LEADERBOARD_FILE).write_bytes(board)
        store = Store()
        for output in _outputs(revision):
            _download(output, top / output.path, store)
        with chdir(top):
            try:
                plan = read_plan(name)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"its files have another form than those of today: {error!r}") from None
            yield replace(plan, runs=[_past(each, made) for each in plan.runs], latest=False)


def _outputs(revision: Revision) -> list[Entry]:
    """What a tracker shows of its outputs."""

    def is_shown(path: Path) -> bool:
        candidate = CANDIDATES in path.parents and path.suffix != ".onnx"
        return path in (BUNDLE, EXPLORE) or (candidate and ".." not in path.parts)

    return [each for each in revision.outputs.values() if is_shown(Path(each.path))]


def _download(output: Entry, to: Path, store: Store) -> None:
    if output.md5.endswith(".dir"):
        for path, member in store.read_folder(output).items():
            _download(member, to / path, store)
        return
    with store.opened(output) as source, _write(to).open("wb") as copy:
        shutil.copyfileobj(source, copy)


def _write(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _past(run: Run, made: float) -> Run:
    """The alias `champion` belongs to the present one."""
    run = replace(run, made=made)
    if run.artifact is None:
        return run
    aliases = [each for each in run.artifact["aliases"] if each != "champion"]
    return replace(run, artifact=run.artifact | {"aliases": aliases})
