"""The release tool's commands: set, promote, rollback and needed."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass

from common import files, overlays
from deploy import github, inputs
from deploy.errors import ReleaseError
from deploy.git import REMOTE, Git
from deploy.registry import ImageInfo, Reference, Registry
from deploy.release import deployments, leaderboard, overlay, publish, words
from deploy.release.deployments import Deployment
from deploy.release.overlay import Release
from deploy.release.publish import Edit
from deploy.release.words import Change

STAGING, PRODUCTION = "staging", "production"
REVISION_LABEL = "org.opencontainers.image.revision"
VERSION_LABEL = "dev.espalier.model.version"
NAME_LABEL = "dev.espalier.model.name"


@dataclass(frozen=True)
class Candidate:
    """An image in the registry, as its labels describe it."""

    release: Release
    model: str


def candidate(info: ImageInfo, image: Reference) -> Candidate:
    """Read the labels.

    Raises:
        ReleaseError: one is missing or malformed.
    """
    values = {}
    for label, form in (
        (REVISION_LABEL, overlay.COMMIT),
        (VERSION_LABEL, overlay.VERSION),
        (NAME_LABEL, overlay.VERSION),
    ):
        value = info.labels.get(label)
        if value is None:
            raise ReleaseError(f"{image} has no label {label}: was it built by `python -m deploy.image`?")
        if not form.fullmatch(value):
            raise ReleaseError(f"{image} has the label {label}={value!r}, which cannot be right")
        values[label] = value
    release = Release(image.name, image.digest, values[VERSION_LABEL], values[REVISION_LABEL])
    return Candidate(release, values[NAME_LABEL])


@dataclass(frozen=True)
class Set:
    """Let an environment run an image."""

    git: Git
    registry: Registry
    environment: str
    image: Reference
    branch: str | None
    push: bool
    force: bool
    check: str | None
    """A check on GitHub that must have succeeded at the image's revision."""
    tries: int

    def run(self) -> None:
        git = self.git
        git.require_history()
        if self.environment == PRODUCTION and not self.force:
            raise ReleaseError(
                "production is released by promoting what staging runs: `python -m deploy.release promote` "
                "(--force sets it all the same)"
            )
        found = candidate(self.registry.inspect(self.image), self.image)
        if self.check:
            require_check(self.check, found.release.revision)
        if not self.push:
            self._write(found)
            return
        branch = self.branch or git.branch() or git.default_branch()
        began = git.read("HEAD", overlays.path(self.environment))
        commit = publish.push(git, branch, lambda tip: self._decide(tip, found, began, branch), self.tries)
        if commit is not None:
            print(f"{self.environment} runs {_name(found)} from {REMOTE}/{branch} {commit[:12]} on")

    def _write(self, found: Candidate) -> None:
        """Edit the working tree, for a person to review and commit."""
        file = self.git.top / overlays.path(self.environment)
        try:
            text = file.read_bytes().decode()
        except FileNotFoundError:
            # If the environment does not exist, its error lists those that do.
            deployments.require_text(self.git, self.git.require("HEAD"), self.environment)
            raise ReleaseError(f"{file} is in the commit, but not in the working tree") from None
        running = overlay.parse(text, str(file))
        where = self.git.branch() or "HEAD"
        if self._judge("HEAD", running, found, where):
            files.write_text(file, overlay.edit(text, found.release, str(file)))
            print(f"{file.relative_to(self.git.top)}: {_name(found)}, {found.release.digest}")
            print("nothing is committed yet: look at `git diff`, or let --push do it")

    def _decide(self, tip: str, found: Candidate, began: str | None, branch: str) -> Edit | None:
        path = overlays.path(self.environment)
        text = deployments.require_text(self.git, tip, self.environment)
        running = overlay.parse(text, path)
        if self._overtaken(running, found, began, branch) or not self._judge(tip, running, found, branch):
            return None
        change = Change.describe(
            self.git, "release", self.environment, running, found.release, model=found.model
        )
        return Edit(path, overlay.edit(text, found.release, path), words.commit_message(change))

    def _overtaken(self, running: Release, found: Candidate, began: str | None, branch: str) -> bool:
        """Whether somebody released a newer revision after this checkout was made: then nothing is to be done.

        Being late is no mistake. `_judge` refuses a revision that was older from the start.
        """
        if began is None or self.force or running.empty:
            return False
        try:
            before = overlay.parse(began, f"HEAD:{overlays.path(self.environment)}")
        except ReleaseError:
            return False  # origin's overlay counts, which can be read
        ours = found.release.revision
        if running == before or running.revision == ours or not self._newer(running.revision, ours):
            return False
        if not before.empty and before.revision != ours and self._newer(before.revision, ours):
            return False
        print(
            f"{self.environment} has been overtaken: {REMOTE}/{branch} runs {running.version} of {running.revision[:12]}, "
            f"which contains {ours[:12]}; nothing was written"
        )
        return True

    def _judge(self, tip: str, running: Release, found: Candidate, branch: str) -> bool:
        """Whether the release changes anything.

        Raises:
            ReleaseError: it is refused.
        """
        git, new = self.git, found.release
        if git.commit(new.revision) is None or not git.contains(tip, new.revision):
            raise ReleaseError(
                f"the image was built from {new.revision}, which is not in the history of {branch}: release what was merged"
            )
        if running == new:
            print(f"{self.environment} already runs {_name(found)}, {new.digest}: nothing to do")
            return False
        if self.force:
            return True
        board = leaderboard.read(git, new.revision)
        if board is not None and board.version != new.version:
            raise ReleaseError(
                f"the image holds model {new.version}, but {leaderboard.PATH} at its revision says {board.version}: it was "
                "built from another bundle (--force releases it all the same)"
            )
        gone_back = deployments.read(git, tip, self.environment).abandoned.get(new.digest)
        if gone_back is not None:
            raise ReleaseError(
                f"{self.environment} was taken back from {new.digest} in {gone_back.commit[:12]} "
                f"({gone_back.time:%Y-%m-%d}): release a later one, or use --force"
            )
        if running.empty or running.revision == new.revision:
            return True
        if git.commit(running.revision) is None:
            raise ReleaseError(
                f"{self.environment} runs revision {running.revision}, which this repository does not have, so it is not "
                "known what is newer: use --force if this image is"
            )
        if not git.contains(new.revision, running.revision):
            how = (
                f"is older than {running.revision[:12]}, which {self.environment} runs"
                if git.contains(running.revision, new.revision)
                else f"does not contain {running.revision[:12]}, which {self.environment} runs"
            )
            raise ReleaseError(f"revision {new.revision[:12]} {how}: use rollback, or --force")
        return True

    def _newer(self, revision: str, than: str) -> bool:
        return self.git.commit(revision) is not None and self.git.contains(revision, than)


@dataclass(frozen=True)
class Proposal:
    """A change of an environment that a person reviews."""

    branch: str
    edit: Edit
    change: Change
    body: str
    note: str | None = None
    """A warning for the person who proposes it."""


@dataclass(frozen=True)
class Proposing(ABC):
    """A command that writes a branch and, if asked, opens its pull request."""

    git: Git
    registry: Registry
    digest: str | None
    base: str | None
    branch: str | None
    pull_request: bool

    def run(self) -> None:
        git = self.git
        git.require_history()
        base = self.base or git.default_branch()
        tip = git.fetch(base)
        proposal = self._proposal(tip, base)
        title, branch = proposal.change.title, proposal.branch
        if proposal.note:
            print(f"note: {proposal.note}", file=sys.stderr)
        if self.pull_request:
            url, new = publish.pull_request(git, base, tip, branch, proposal.edit, title, proposal.body)
            print(f"{title}\n{'opened' if new else 'already open:'} {url}")
            return
        commit = publish.local_branch(git, tip, branch, proposal.edit)
        print(f"{title}\n{commit[:12]} on the new branch {branch}, in this clone only")
        print(f"look: git show {branch}\npropose: git push {REMOTE} {branch}, or again with --pull-request")

    @abstractmethod
    def _proposal(self, tip: str, base: str) -> Proposal:
        """What to propose at the tip of the base branch.

        Raises:
            ReleaseError: there is nothing to propose.
        """


@dataclass(frozen=True)
class Promote(Proposing):
    """Let production run what staging runs."""

    def _proposal(self, tip: str, base: str) -> Proposal:
        git = self.git
        staging = deployments.current(git, tip, STAGING)
        path = overlays.path(PRODUCTION)
        text = deployments.require_text(git, tip, PRODUCTION)
        running = overlay.parse(text, path)
        if staging.empty:
            raise ReleaseError("nothing was released to staging yet, so there is nothing to promote")
        if self.digest is not None and self.digest != staging.digest:
            raise ReleaseError(
                f"staging at {REMOTE}/{base} runs {staging.digest}, not {self.digest}: only what staging runs is promoted"
            )
        if running == staging:
            raise ReleaseError(
                f"production already runs what staging runs ({staging.version}, {staging.digest}): nothing to promote"
            )
        image = Reference.parse(staging.image)
        found = candidate(self.registry.inspect(image), image)
        if found.release != staging:
            raise ReleaseError(
                f"staging's overlay says version {staging.version} of {staging.revision[:12]}, but the image's labels say "
                f"{found.release.version} of {found.release.revision[:12]}: release to staging again"
            )
        change = Change.describe(git, "promote", PRODUCTION, running, staging, model=found.model)
        abandoned = deployments.read(git, tip, PRODUCTION).abandoned.get(staging.digest)
        since = deployments.read(git, tip, STAGING).current
        return Proposal(
            self.branch or f"promote/{PRODUCTION}-{_short(staging.digest)}",
            Edit(path, overlay.edit(text, staging, path), words.commit_message(change)),
            change,
            words.promotion(git, change, since, abandoned),
            f"production was taken back from this image in {abandoned.commit[:12]}" if abandoned else None,
        )


@dataclass(frozen=True)
class Rollback(Proposing):
    """Let an environment run what it ran before."""

    environment: str
    ask_registry: bool
    """Whether to check that the image still exists."""

    def _proposal(self, tip: str, base: str) -> Proposal:  # noqa: ARG002 - the tip is enough here
        git, environment = self.git, self.environment
        path = overlays.path(environment)
        text = deployments.require_text(git, tip, environment)
        running = overlay.parse(text, path)
        target = self._target(deployments.read(git, tip, environment))
        if self.ask_registry:
            self.registry.require(Reference.parse(target.release.image))
        change = Change.describe(git, "rollback", environment, running, target.release)
        return Proposal(
            self.branch or f"rollback/{environment}-{_short(target.release.digest)}",
            Edit(path, overlay.edit(text, target.release, path), words.commit_message(change)),
            change,
            words.restoration(git, change, target),
        )

    def _target(self, timeline: deployments.Timeline) -> Deployment:
        environment, current = self.environment, timeline.current
        if current is None:
            raise ReleaseError(
                f"nothing was released to {environment} yet, so there is nothing to go back to"
            )
        if self.digest is None:
            if timeline.previous is None:
                raise ReleaseError(
                    f"{environment} runs {current.release.digest}, and there is nothing good before it to go back to"
                )
            return timeline.previous
        wanted = self.digest if self.digest.startswith("sha256:") else f"sha256:{self.digest}"
        # The last deployment of a digest counts, because it names the registry that the image is in now.
        matching = {
            each.release.digest: each
            for each in timeline.deployments
            if each.release.digest.startswith(wanted) and len(wanted) >= len("sha256:") + 7
        }
        if len(matching) != 1:
            raise ReleaseError(
                f"{self.digest} is the beginning of several digests: {', '.join(matching)}"
                if matching
                else f"{self.digest} was never released to {environment}; "
                "`python -m deploy.release status --json` lists them"
            )
        (found,) = matching.values()
        if found.release.digest == current.release.digest:
            raise ReleaseError(f"{environment} already runs {found.release.digest}: nothing to do")
        return found


def needed(git: Git, base: str | None = None) -> bool:
    """Whether the image at HEAD differs from the one that staging runs; prints why."""
    head = git.require("HEAD")
    branch = base or git.default_branch()
    # Origin's branch may have a release that this checkout lacks; a clone without a remote has only its HEAD.
    tip = git.commit(f"refs/remotes/{REMOTE}/{branch}") or head
    running = deployments.current(git, tip, STAGING)
    if running.empty:
        print("needed: nothing was released to staging yet")
        return True
    if git.commit(running.revision) is None and not git.shallow:
        print(f"needed: staging runs revision {running.revision[:12]}, which this repository does not have")
        return True
    revision = git.require(running.revision)
    if revision == head:
        print(f"not needed: staging runs {head[:12]}, which is this commit")
        return False
    if git.contains(revision, head):
        print(f"not needed: staging runs {revision[:12]}, which contains {head[:12]}")
        return False
    paths = inputs.changed(revision, head, git.top)
    if not paths:
        print(
            f"not needed: nothing that goes into the image differs between {revision[:12]}, which staging runs, and {head[:12]}"
        )
        return False
    shown = ", ".join(paths[:10]) + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
    print(f"needed: since {revision[:12]}, which staging runs, there changed {shown}")
    return True


def require_check(name: str, commit: str) -> None:
    """Refuse unless the latest run of a check on GitHub succeeded."""
    runs = github.check_runs(commit, name)
    if not runs:
        raise ReleaseError(f"the check {name!r} has not run at {commit[:12]}")
    for run in runs:
        if run["conclusion"] != "success":
            said = run["conclusion"] or run["status"]
            raise ReleaseError(f"the check {name!r} at {commit[:12]} is not green: {said}")


def _name(found: Candidate) -> str:
    return f"{found.model} {found.release.version}"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
