"""What a reproduction changed in git, as a patch: made where the training ran, applied where there is a token.

The two are different jobs, so that training code and its packages never run beside a token that can write to the
repository. The patch is therefore untrusted: it may change recorded results and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from common import models
from common.git import GitError, attempt, git
from common.git import reason as git_reason
from deploy.errors import DeployError

RESULTS = ("metrics/", "reports/", "MODEL_CARD.md")
RECORDED = ("dvc.lock", *RESULTS)
"""Everything that `dvc repro` writes into git for a model; a test compares it with dvc.yaml."""
LARGEST = 5_000_000
"""Bytes of a patch. Results in git are small; anything larger is a mistake."""
REGULAR = {"000000", "100644"}
"""Modes: deleted, and a plain file."""


def make(without: Collection[str] = ()) -> bytes:
    """The difference of recorded results between HEAD and the working tree, new files included.

    Args:
        without: models whose results stay as HEAD has them.
    """
    folders = [folder for name, folder in models.find(Path()).items() if name not in without]
    places = (folder / each for folder in folders for each in RECORDED)
    recorded = [str(each) for each in places if each.exists()]
    if not recorded:
        return b""  # without a path git would take all
    git("add", "--intent-to-add", "--", *recorded)
    shown = attempt(
        "diff", "--binary", "--no-color", "--no-ext-diff", "--full-index", "HEAD", "--", *recorded
    )
    if shown.returncode:
        raise GitError(f"git diff: {git_reason(shown.stderr)}")
    return shown.stdout


def apply(patch: Path) -> list[str]:
    """Apply a patch to the index and return the files that it changes.

    The working tree stays unchanged, so a refused patch writes no file.

    Raises:
        DeployError: it changes more than recorded results, or does not fit this commit.
    """
    try:
        content = patch.read_bytes()
    except OSError as error:
        raise DeployError(f"cannot read {patch}: {error.strerror}") from None
    if not content.strip():
        return []
    if len(content) > LARGEST:
        raise DeployError(f"{patch} has {len(content):,} bytes, and {LARGEST:,} are allowed")
    applied = attempt("apply", "--cached", "-", stdin=content)
    if applied.returncode:
        commit = git("rev-parse", "--short=10", "HEAD").strip()
        raise GitError(f"the patch does not fit {commit}: {git_reason(applied.stderr)}")
    modes = _changed()
    try:
        _check(modes)
    except DeployError:
        git("read-tree", "HEAD")
        raise
    return sorted(modes)


def is_recorded(path: str) -> bool:
    """Whether a path is of recorded results, of the first model or of a further one."""
    _, path = split(path)
    return any(path == each or (each.endswith("/") and path.startswith(each)) for each in RECORDED)


def split(path: str) -> tuple[str | None, str]:
    """The further model that a file is of (None for the first), and the path in the model's folder."""
    parts = path.split("/", 2)
    return (parts[1], parts[2]) if parts[0] == models.FOLDER and len(parts) == 3 else (None, path)


def _changed() -> dict[str, str]:
    """The new mode of each changed path. The index is asked, because a patch can hide what it moves."""
    fields = git("diff", "--cached", "--raw", "--no-renames", "-z", "HEAD").split("\0")
    return {path: entry.split(" ")[1] for entry, path in zip(fields[::2], fields[1::2], strict=False)}


def _check(modes: dict[str, str]) -> None:
    if foreign := sorted(path for path in modes if not is_recorded(path)):
        raise DeployError(f"the patch changes {', '.join(foreign)}, which no reproduction writes")
    if special := sorted(path for path, mode in modes.items() if mode not in REGULAR):
        raise DeployError(f"the patch makes {', '.join(special)} something else than a plain file")
