"""What a reproduction changed in git, as a patch: made where the training ran, applied where there is a token.

The two are different jobs, so that no training code, and no package it brings, ever runs beside a token that can
write to the repository. The patch is therefore not trusted: it may change recorded results and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from deploy.ci.git import attempt, git, last_line
from deploy.errors import DeployError, GitError

RECORDED = ("dvc.lock", "metrics/", "reports/", "MODEL_CARD.md")
"""All that `dvc repro` writes into git. A test compares it with dvc.yaml."""
LARGEST = 5_000_000
"""Bytes of a patch. Results in git are small; anything larger is a mistake."""
REGULAR = {"000000", "100644"}


def make() -> bytes:
    """The difference between HEAD and what is there now, new files included, among recorded results only."""
    recorded = [each.rstrip("/") for each in RECORDED if Path(each).exists()]
    git("add", "--intent-to-add", "--", *recorded)
    shown = attempt(
        "diff", "--binary", "--no-color", "--no-ext-diff", "--full-index", "HEAD", "--", *recorded
    )
    if shown.returncode:
        raise GitError(f"git diff: {last_line(shown)}")
    return shown.stdout


def apply(patch: Path) -> list[str]:
    """Apply a patch to the working tree and the index, and name the files it changed; none for an empty one.

    Raises:
        DeployError: it changes anything but recorded results, or does not fit this commit.
    """
    try:
        content = patch.read_bytes()
    except OSError as error:
        raise DeployError(f"cannot read {patch}: {error.strerror}") from None
    if not content.strip():
        return []
    if len(content) > LARGEST:
        raise DeployError(f"{patch} has {len(content):,} bytes, and {LARGEST:,} are allowed")
    names = [line.split("\t", 2)[2] for line in _numstat(content)]
    if foreign := sorted(name for name in names if not is_recorded(name)):
        raise DeployError(f"the patch changes {', '.join(foreign)}, which no reproduction writes")
    applied = attempt("apply", "--index", "-", stdin=content)
    if applied.returncode:
        raise GitError(
            f"the patch does not fit {git('rev-parse', '--short', 'HEAD').strip()}: {last_line(applied)}"
        )
    _only_regular_files()
    return names


def is_recorded(path: str) -> bool:
    return any(path == each or (each.endswith("/") and path.startswith(each)) for each in RECORDED)


def _numstat(content: bytes) -> list[str]:
    done = attempt("apply", "--numstat", "-z", "-", stdin=content)
    if done.returncode:
        raise DeployError("this is no patch that git can read")
    return [line for line in done.stdout.decode(errors="replace").split("\0") if line]


def _only_regular_files() -> None:
    """No symbolic link and no executable may come in this way."""
    for line in git("diff", "--cached", "--raw", "--no-renames", "HEAD").splitlines():
        _, mode, _, _, rest = line.split(" ", 4)
        if mode not in REGULAR:
            git("reset", "--hard", "--quiet", "HEAD")
            raise DeployError(f"the patch makes {rest.split(chr(9))[-1]} something else than a plain file")
