"""The release tool's commands: set, promote, rollback and needed."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass

from common import files, models, overlays
from common.errors import EspalierError
from common.overlays import OverlayError, Release
from deploy import forge, inputs
from deploy.errors import ReleaseError
from deploy.git import REMOTE, Git
from deploy.registry import ImageInfo, Reference, Registry
from deploy.release import deployments, evidence, leaderboard, publish, waves, words
from deploy.release.deployments import Deployment
from deploy.release.evidence import Evidence
from deploy.release.publish import Edit
from deploy.release.words import Change
from monitoring.prometheus import Prometheus, PrometheusError

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
        (REVISION_LABEL, overlays.REVISION),
        (VERSION_LABEL, overlays.VERSION),
        (NAME_LABEL, models.NAME),
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
    """Let an environment run an image of a model, or of several."""

    git: Git
    registry: Registry
    environment: str
    images: list[Reference]
    branch: str | None
    push: bool
    force: bool
    check: str | None
    """A check on the forge that must have succeeded at the image's revision."""
    tries: int

    def run(self) -> None:
        """Each image by itself, so that one that is refused does not stop the others."""
        self.git.require_history()
        listed = waves.read(self.git, self.git.require("HEAD"))
        if not self.force and any(
            each.name == self.environment and each.wave for each in listed.environments
        ):
            raise ReleaseError(
                f"{self.environment} is released by promoting what runs in the wave before: `python -m deploy.release "
                f"promote {self.environment}` (--force sets it all the same)"
            )
        refused = []
        for image in self.images:
            try:
                self._set(image)
            except EspalierError as error:
                if len(self.images) == 1:
                    raise
                print(f"error: {image}: {error}", file=sys.stderr)
                refused.append(image)
        if refused:
            raise ReleaseError(f"{len(refused)} of {len(self.images)} images were not released, see above")

    def _set(self, image: Reference) -> None:
        git = self.git
        found = candidate(self.registry.inspect(image), image)
        if self.check:
            require_check(self.check, found.release.revision)
        if not self.push:
            self._write(found)
            return
        branch = self.branch or git.branch() or git.default_branch()
        began = git.read("HEAD", overlays.path(self.environment, found.model))
        commit = publish.push(git, branch, lambda tip: self._decide(tip, found, began, branch), self.tries)
        if commit is not None:
            print(f"{self.environment} runs {_name(found)} from {REMOTE}/{branch} {commit[:12]} on")

    def _write(self, found: Candidate) -> None:
        """Write the file in the working tree, for a person to review and commit."""
        folder = self.git.top / overlays.folder(self.environment, found.model)
        if not folder.is_dir():
            # If the environment or the overlay does not exist, the error lists those that do.
            deployments.require_overlay(self.git, self.git.require("HEAD"), self.environment, found.model)
            raise ReleaseError(f"{folder} is in the commit, but not in the working tree")
        file = folder / overlays.FILE
        running = overlays.parse(file.read_bytes().decode(), str(file)) if file.exists() else None
        where = self.git.branch() or "HEAD"
        if self._judge("HEAD", running, found, where):
            files.write_text(file, str(found.release))
            print(f"{file.relative_to(self.git.top)}: {_name(found)}, {found.release.digest}")
            print("nothing is committed yet: look at `git diff`, or let --push do it")

    def _decide(self, tip: str, found: Candidate, began: str | None, branch: str) -> Edit | None:
        running = deployments.current(self.git, tip, self.environment, found.model)
        if self._overtaken(running, found, began, branch) or not self._judge(tip, running, found, branch):
            return None
        change = Change.describe(self.git, "release", self.environment, found.model, running, found.release)
        return Edit(
            overlays.path(self.environment, found.model), str(found.release), words.commit_message(change)
        )

    def _overtaken(self, running: Release | None, found: Candidate, began: str | None, branch: str) -> bool:
        """Whether somebody released a newer revision after this checkout was made: then nothing is to be done.

        Being late is no mistake. `_judge` refuses a revision that was older from the start.
        """
        if running is None or self.force:
            return False
        try:
            before = overlays.parse(began, "HEAD") if began is not None else None
        except OverlayError:
            return False  # origin's file counts, which can be read
        ours = found.release.revision
        if running == before or running.revision == ours or not self._newer(running.revision, ours):
            return False
        if before is not None and before.revision != ours and self._newer(before.revision, ours):
            return False
        print(
            f"{self.environment} has been overtaken: {REMOTE}/{branch} runs {found.model} {running.version} of "
            f"{running.revision[:12]}, which contains {ours[:12]}; nothing was written"
        )
        return True

    def _judge(self, tip: str, running: Release | None, found: Candidate, branch: str) -> bool:
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
        board = leaderboard.read(git, new.revision, found.model)
        if board is not None and board.version != new.version:
            raise ReleaseError(
                f"the image holds model {new.version}, but {leaderboard.path(git, found.model)} at its revision says "
                f"{board.version}: it was built from another bundle (--force releases it all the same)"
            )
        gone_back = deployments.read(git, tip, self.environment, found.model).abandoned.get(new.digest)
        if gone_back is not None:
            raise ReleaseError(
                f"{self.environment} was taken back from {new.digest} in {gone_back.commit[:12]} "
                f"({gone_back.time:%Y-%m-%d}): release a later one, or use --force"
            )
        if running is None or running.revision == new.revision:
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
            raise ReleaseError(
                f"revision {new.revision[:12]} {how}: use `python -m deploy.release rollback {self.environment}`, or --force"
            )
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
    model: str
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
    """Let an environment run what the wave before runs."""

    environment: str | None
    """The first of wave 1 if None."""
    prometheus: str | None
    """The address of the Prometheus that watches the wave before."""
    without_evidence: str | None
    """Why the promotion is right although evidence is missing."""

    def _proposal(self, tip: str, base: str) -> Proposal:
        git, model = self.git, self.model
        listed = waves.read(git, tip)
        to = listed.promoted(self.environment)
        if to.wave == 0:
            raise ReleaseError(f"{to.name} is where releases go first: there is nothing before it to promote")
        sources = [each for each in listed.before(to) if model in deployments.owners(git, tip).get(each, ())]
        if not sources:
            deployments.require_overlay(git, tip, listed.before(to)[0], model)
        before = _and(sources)
        staged = self._staged(tip, sources)
        running = deployments.current(git, tip, to.name, model)
        if self.digest is not None and self.digest != staged.digest:
            raise ReleaseError(
                f"{before} at {REMOTE}/{base} runs {model} {staged.digest}, not {self.digest}: only what {before} runs is "
                f"promoted to {to.name}"
            )
        if running == staged:
            raise ReleaseError(
                f"{to.name} already runs what {before} runs ({model} {staged.version}, {staged.digest}): nothing to promote"
            )
        image = Reference.parse(staged.image)
        found = candidate(self.registry.inspect(image), image)
        if found != Candidate(staged, model):
            raise ReleaseError(
                f"{before}'s overlay says {model} {staged.version} of {staged.revision[:12]}, but the image's labels say "
                f"{_name(found)} of {found.release.revision[:12]}: release to {listed.first} again"
            )
        found_evidence = self._evidence(staged, sources, to.name)
        change = Change.describe(git, "promote", to.name, model, running, staged)
        abandoned = deployments.read(git, tip, to.name, model).abandoned.get(staged.digest)
        since = [(each, deployments.read(git, tip, each, model).current) for each in sources]
        return Proposal(
            self.branch or f"promote/{to.name}-{model}-{_short(staged.digest)}",
            Edit(
                overlays.path(to.name, model),
                str(staged),
                words.commit_message(change, self.without_evidence),
            ),
            change,
            words.promotion(git, change, since, abandoned, found_evidence, self.without_evidence),
            f"{to.name} was taken back from this image in {abandoned.commit[:12]}" if abandoned else None,
        )

    def _staged(self, tip: str, sources: list[str]) -> Release:
        """What the wave before runs.

        Raises:
            ReleaseError: an environment runs nothing, or they run several images.
        """
        running = {each: deployments.current(self.git, tip, each, self.model) for each in sources}
        for name, release in running.items():
            if release is None:
                raise ReleaseError(
                    f"{self.model} was never released to {name}, so there is nothing to promote"
                )
        releases = list(dict.fromkeys(each for each in running.values() if each is not None))
        if len(releases) > 1:
            said = ", ".join(f"{name} {each.version}" for name, each in running.items() if each is not None)
            raise ReleaseError(
                f"{self.model} is not the same in the whole wave before ({said}): promote it there first"
            )
        return releases[0]

    def _evidence(self, staged: Release, sources: list[str], to: str) -> list[Evidence]:
        """What speaks for the promotion.

        Raises:
            ReleaseError: something is missing, and no reason is given to go on without it.
        """
        remedy = "wait, or give --without-evidence REASON, which the commit records"
        if self.prometheus is None:
            if self.without_evidence:
                return []
            raise ReleaseError(
                f"no Prometheus is named that shows how {_and(sources)} does: give --prometheus or PROMETHEUS_URL, or "
                "--without-evidence REASON, which the commit records"
            )
        wanted = evidence.minutes(self.git.top)
        found: list[Evidence] = []
        try:
            with Prometheus(self.prometheus, os.environ.get("PROMETHEUS_TOKEN")) as server:
                for name in sources:
                    collected = evidence.collect(server, name, self.model, staged.digest, wanted)
                    found += collected if len(sources) == 1 else [each.of(name) for each in collected]
        except PrometheusError as error:
            if self.without_evidence:
                return [Evidence("Prometheus answers", False, str(error))]
            raise ReleaseError(
                f"there is no evidence of how {_and(sources)} does: {error}; {remedy}"
            ) from None
        missing = [f"{each.requirement} ({each.found})" for each in found if not each.met]
        if missing and not self.without_evidence:
            raise ReleaseError(
                f"{self.model} {staged.version} is not ready for {to}; missing: {'; '.join(missing)}: {remedy}"
            )
        return found


@dataclass(frozen=True)
class Rollback(Proposing):
    """Let a model run in an environment what it ran there before."""

    environment: str | None
    """The first of wave 1 if None."""
    ask_registry: bool
    """Whether to check that the image still exists."""

    def _proposal(self, tip: str, base: str) -> Proposal:  # noqa: ARG002 - the tip is enough here
        git, model = self.git, self.model
        environment = waves.read(git, tip).promoted(self.environment).name
        running = deployments.current(git, tip, environment, model)
        target = self._target(environment, deployments.read(git, tip, environment, model))
        if self.ask_registry:
            self.registry.require(Reference.parse(target.release.image))
        change = Change.describe(git, "rollback", environment, model, running, target.release)
        return Proposal(
            self.branch or f"rollback/{environment}-{model}-{_short(target.release.digest)}",
            Edit(overlays.path(environment, model), str(target.release), words.commit_message(change)),
            change,
            words.restoration(git, change, target),
        )

    def _target(self, environment: str, timeline: deployments.Timeline) -> Deployment:
        current = timeline.current
        if current is None:
            raise ReleaseError(
                f"{self.model} was never released to {environment}, so there is nothing to go back to"
            )
        if self.digest is None:
            if timeline.previous is None:
                raise ReleaseError(
                    f"{environment} runs {self.model} {current.release.digest}, and there is nothing good before it to go back to"
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
                else f"{self.digest} of {self.model} was never released to {environment}; "
                "`python -m deploy.release status --json` lists them"
            )
        (found,) = matching.values()
        if found.release.digest == current.release.digest:
            raise ReleaseError(f"{environment} already runs {found.release.digest}: nothing to do")
        return found


def needed(git: Git, base: str | None = None) -> list[str]:
    """The models whose image at HEAD differs from the one that the first wave runs; prints why, one line each."""
    head = git.require("HEAD")
    branch = base or git.default_branch()
    # Origin's branch may have a release that this checkout lacks; a clone without a remote has only its HEAD.
    tip = git.commit(f"refs/remotes/{REMOTE}/{branch}") or head
    found = []
    first = waves.read(git, tip).first
    for model in models.find(git.top):
        is_needed, why = _needed(git, head, tip, first, model)
        print(f"{model}: {'needed' if is_needed else 'not needed'}: {why}")
        found += [model] if is_needed else []
    if not found:
        print("no model changes: nothing is released")
    return found


def _needed(git: Git, head: str, tip: str, first: str, model: str) -> tuple[bool, str]:
    further = models.further(git.top / models.prefix(model, git.top))
    if inputs.bundle_hash(head, git.top, further) is None:
        return False, f"{head[:12]} has no trained model"
    if model not in deployments.owners(git, tip).get(first, ()):
        return False, f"it has no overlay in {first}: `python -m deploy.overlay {model}` writes it"
    running = deployments.current(git, tip, first, model)
    if running is None:
        return True, f"it was never released to {first}"
    if git.commit(running.revision) is None and not git.shallow:
        return True, f"{first} runs revision {running.revision[:12]}, which this repository does not have"
    revision = git.require(running.revision)
    if revision == head:
        return False, f"{first} runs {head[:12]}, which is this commit"
    if git.contains(revision, head):
        return False, f"{first} runs {revision[:12]}, which contains {head[:12]}"
    paths = inputs.changed(revision, head, git.top, further)
    if not paths:
        return (
            False,
            f"nothing that goes into the image differs between {revision[:12]}, which {first} runs, and {head[:12]}",
        )
    shown = ", ".join(paths[:10]) + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
    return True, f"since {revision[:12]}, which {first} runs, there changed {shown}"


def require_check(name: str, commit: str) -> None:
    """Refuse unless the latest run of a check on the forge succeeded."""
    found = forge.current().check(commit, name)
    if not found:
        raise ReleaseError(f"the check {name!r} has not run at {commit[:12]}")
    for said in found:
        if said != "success":
            raise ReleaseError(f"the check {name!r} at {commit[:12]} is not green: {said}")


def _name(found: Candidate) -> str:
    return f"{found.model} {found.release.version}"


def _and(names: list[str]) -> str:
    return " and ".join(names)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
