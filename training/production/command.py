"""Compare the champion with the model that production runs, both scored on the same test split.

Reads  model/, data/test.parquet, data/profile.json, params.yaml (evaluate, select),
       deploy/overlays/production/kustomization.yaml, which names the revision that production runs,
       and that revision's bundle, from DVC's cache or its remote

Exits with 0 when the champion may be released; with 1 when it is worse by more than select.gate.production allows,
when the two cannot be compared, or when production's model is not available. docs/configuration.md has the rules.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from app.contract import (
    MANIFEST_FILE,
    MODEL_FILE,
    SCHEMA_VERSION,
    Bundle,
    BundleError,
    Manifest,
    read_bundle,
)
from common import files, models, overlays
from common.overlays import REVISION_ANNOTATION, VERSION_LABEL
from training.base import cli, config
from training.base.config import VERSION, EvaluateSettings, SelectSettings, Settings
from training.base.errors import ConfigError, DataError, GateError
from training.data.dataset import TEST_FILE, TRAIN_FILE, Profile, read_profile, read_split
from training.production import comparison
from training.production.comparison import Comparison, History, IncomparableError, Rules, Side
from training.production.revisions import Revision, Store, UnreachableError
from training.results import board

if TYPE_CHECKING:
    from rich.table import Table

BUNDLE = Path("model")
NEVER = "0" * 40
"""The commit in an overlay before its first release."""

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


class ProductionSettings(Settings):
    evaluate: EvaluateSettings
    select: SelectSettings


@dataclass(frozen=True)
class Released:
    """The commit in an overlay, and the model's version if the overlay has one."""

    commit: str
    version: str | None


def main() -> None:
    parser = cli.parser("training.production", __doc__)
    parser.add_argument("--candidate", type=Path, default=BUNDLE, metavar="DIR", help="the bundle (model)")
    parser.add_argument("--environment", default="production", help="whose overlay is read (production)")
    parser.add_argument("--overlay", type=Path, metavar="FILE", help="another kustomization.yaml to read")
    parser.add_argument("--at", metavar="REV", help="read the overlay as it is there, such as origin/main")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    arguments = parser.parse_args()
    overlay = arguments.overlay or overlays.from_here(arguments.environment)
    result = compare(
        read_released(overlay, Revision.find(arguments.at) if arguments.at else None),
        config.load(ProductionSettings),
        candidate=arguments.candidate,
        environment=arguments.environment,
    )
    if arguments.json:
        files.write_text(arguments.json, result.model_dump_json(indent=2) + "\n")
    show(result)
    if not result.passed:
        raise GateError(result.verdict)


def read_released(overlay: Path, at: Revision | None = None) -> Released:
    """The release that an overlay names, in the working tree or at a revision.

    Raises:
        ConfigError: there is no such overlay, or it names no revision.
    """
    try:
        content = at.file(overlay.as_posix()) if at else overlay.read_bytes()
    except FileNotFoundError:
        content = None
    except OSError as error:
        raise ConfigError(f"cannot read {overlay}: {error.strerror}") from None
    if content is None and models.further(Path()):
        # It gets an overlay with its first release.
        return Released(NEVER, None)
    if content is None:
        raise ConfigError(f"there is no {overlay} {f'at {at.short}' if at else 'here'}")
    commit, version = None, None
    try:
        # BaseLoader reads only text, so a version of digits stays text; it makes no objects either.
        document = yaml.load(content, Loader=yaml.BaseLoader)  # noqa: S506
        commit = document["commonAnnotations"][REVISION_ANNOTATION]
        labels = [each.get("pairs", {}) for each in document.get("labels", ())]
        version = next((each[VERSION_LABEL] for each in labels if VERSION_LABEL in each), None)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        pass
    if not isinstance(commit, str) or not _COMMIT.match(commit):
        raise ConfigError(
            f"{overlay} does not say what runs: commonAnnotations must hold {REVISION_ANNOTATION} with a full commit "
            "(40 zeros before the first release)"
        )
    known = isinstance(version, str) and VERSION.match(version)
    return Released(commit, version if known else None)


def compare(
    released: Released,
    settings: ProductionSettings,
    *,
    candidate: Path = BUNDLE,
    environment: str = "production",
) -> Comparison:
    """Compare a bundle with the one that was released.

    Raises:
        UnreachableError: the revision or its bundle is not available.
        DataError: the bundle found is not the one that the overlay names, or the working tree was not reproduced.
        BundleError: the candidate is not a valid bundle.
    """
    ours = read_bundle(candidate)
    side = Side.of(ours.manifest)
    if released.commit == NEVER:
        return Comparison(
            passed=True,
            outcome="nothing_released",
            verdict=f"nothing was released to {environment} yet, so there is nothing to compare with",
            environment=environment,
            candidate=side,
        )
    accepted = settings.select.gate.production.accept_incomparable
    try:
        revision = Revision.find(released.commit)
        if _version_at(revision, released) == side.version:
            return Comparison(
                passed=True,
                outcome="same",
                verdict=f"{environment} runs this very model",
                environment=environment,
                candidate=side,
                production=Side.of(ours.manifest, released.commit),
            )
        return _compared(ours, revision, released, settings, environment)
    except IncomparableError as error:
        return _incomparable(side, error.production, error.reasons, accepted, environment)
    except UnreachableError as error:
        if released.version is None or accepted != released.version:
            raise
        theirs = Side(name="?", algorithm="model", version=released.version, commit=released.commit)
        return _incomparable(side, theirs, [str(error)], accepted, environment)


def show(result: Comparison) -> None:
    """For a terminal."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    if result.figures:
        console.print(_table(result))
        console.print(
            f"{result.confidence:.0%} intervals. {escape(comparison.certainty(result))}", soft_wrap=True
        )
    for warning in result.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if result.passed:
        console.print(f"[bold green]passes:[/] {escape(result.verdict)}", soft_wrap=True)


def _compared(
    candidate: Bundle,
    revision: Revision,
    released: Released,
    settings: ProductionSettings,
    environment: str,
) -> Comparison:
    store = Store()
    production = _fetch(revision, released, store)
    profile = read_profile()
    test = read_split(TEST_FILE, profile)
    _check_reproduced(candidate.manifest, profile)
    return comparison.compare(
        candidate,
        production,
        revision.commit,
        profile,
        test,
        _history(revision, store),
        Rules(settings.evaluate, settings.select.gate.production),
        environment,
    )


def _fetch(revision: Revision, released: Released, store: Store) -> Bundle:
    """The verified bundle of a revision."""
    where = f"the bundle of revision {revision.short}"
    output = revision.outputs.get(BUNDLE.as_posix())
    if output is None:
        raise UnreachableError(f"dvc.lock of revision {revision.short} records no {BUNDLE}")
    members = store.read_folder(output)
    if absent := [name for name in (MODEL_FILE, MANIFEST_FILE) if name not in members]:
        raise DataError(f"{where} has no {' and no '.join(absent)}")
    manifest = store.read(members[MANIFEST_FILE])
    _check_schema_version(manifest, revision, released)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / MANIFEST_FILE).write_bytes(manifest)
        (folder / MODEL_FILE).write_bytes(store.read(members[MODEL_FILE]))
        try:
            bundle = read_bundle(folder)
        except BundleError as error:
            raise DataError(f"{where} is not sound: {str(error).replace(f'{name}/', '')}") from None
    _check_version(bundle.manifest.version, revision, released)
    return bundle


def _version_at(revision: Revision, released: Released) -> str | None:
    """The version that a revision's leaderboard names: it is in git, so an unchanged model costs no download."""
    found = board.parse(revision.file(board.LEADERBOARD_FILE.as_posix()))
    if found is None:
        return None
    _check_version(found.version, revision, released)
    return found.version


def _check_version(version: str, revision: Revision, released: Released) -> None:
    if released.version not in (None, version):
        raise DataError(
            f"the overlay says that version {released.version} runs, but its revision {revision.short} made "
            f"{version}: let `python -m deploy.release` write both"
        )


def _check_schema_version(manifest: bytes, revision: Revision, released: Released) -> None:
    try:
        document = json.loads(manifest)
    except ValueError:
        return  # read_bundle reports it
    if not isinstance(document, dict) or document.get("schema_version") == SCHEMA_VERSION:
        return
    side = Side(
        name=str(document.get("name", "?")),
        algorithm=str(document.get("algorithm", "model")),
        version=str(document.get("version", released.version)),
        commit=revision.commit,
    )
    found = document.get("schema_version")
    raise IncomparableError(
        [f"its bundle has schema version {found!r} and this code reads {SCHEMA_VERSION}"], side
    )


def _check_reproduced(candidate: Manifest, profile: Profile) -> None:
    if candidate.classes != profile.classes or candidate.features != profile.features:
        raise DataError(
            "the champion was not made from what data/ holds: run `dvc repro`, so that both are of one run"
        )


def _history(revision: Revision, store: Store) -> History:
    now = hashlib.md5(TEST_FILE.read_bytes(), usedforsecurity=False).hexdigest()
    test = revision.outputs.get(TEST_FILE.as_posix())
    then = test.md5 if test else None
    if now == then:
        return History(now, then)
    output = revision.outputs.get(TRAIN_FILE.as_posix())
    if output is None:
        return History(now, then, why_not=f"dvc.lock of revision {revision.short} records no {TRAIN_FILE}")
    try:
        return History(now, then, pd.read_parquet(io.BytesIO(store.read(output))))
    except UnreachableError as error:
        return History(now, then, why_not=str(error))


def _incomparable(
    ours: Side, theirs: Side, reasons: Sequence[str], accepted: str | None, environment: str
) -> Comparison:
    passed = accepted == theirs.version
    why = "; ".join(reasons)
    verdict = f"{ours.called} cannot be compared with {theirs.called}, which {environment} runs: {why}. "
    if passed:
        verdict += "select.gate.production.accept_incomparable accepts it for this version"
    else:
        verdict += (
            "If it is to take over all the same, say so in params.yaml: "
            f'select.gate.production.accept_incomparable: "{theirs.version}"'
        )
    return Comparison(
        passed=passed,
        outcome="incomparable",
        verdict=verdict,
        environment=environment,
        candidate=ours,
        production=theirs,
        reasons=tuple(reasons),
    )


def _table(result: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("on test", no_wrap=True)
    for column in (result.environment, "this model", "difference", "allowed"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in result.figures:
        table.add_row(
            each.metric,
            f"{each.production.value:.3f}",
            f"{each.candidate.value:.3f}",
            comparison.signed(each.difference),
            "" if each.allowed is None else f"{each.allowed:g}",
            style=None if each.passes else "bold red",
        )
    return table
