"""Compare the champion with the model that production runs, both scored on the same test split.

Reads  model/, data/test.parquet, data/profile.json, params.yaml (evaluate, select),
       the release file in the model's overlay of production, which names the revision that production runs,
       and that revision's bundle, from DVC's cache or its remote

Exits with 0 when the champion may be released; with 1 when it is worse by more than select.gate.production allows,
when the two cannot be compared, or when production's model is not available. docs/configuration.md has the rules.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.contract import (
    EXPLANATION_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    SCHEMA_VERSION,
    Bundle,
    BundleError,
    Manifest,
    read_bundle,
)
from common import files, overlays
from common.overlays import Release
from training.base import cli, config
from training.base.errors import ConfigError, DataError, GateError
from training.base.section import Settings
from training.data.dataset import TEST_FILE, TRAIN_FILE, Profile, read_profile, read_split
from training.data.table import ParquetTable
from training.production import comparison
from training.production.comparison import Comparison, History, IncomparableError, Rules, Side
from training.production.revisions import Revision, Store, UnreachableError
from training.results import board
from training.sections.evaluate import EvaluateSettings
from training.sections.select import SelectSettings

if TYPE_CHECKING:
    from rich.table import Table

BUNDLE = Path("model")


class ProductionSettings(Settings):
    evaluate: EvaluateSettings
    select: SelectSettings


def main() -> None:
    parser = cli.parser("training.production", __doc__)
    parser.add_argument("--candidate", type=Path, default=BUNDLE, metavar="DIR", help="the bundle (model)")
    parser.add_argument("--environment", default="production", help="whose overlay is read (production)")
    parser.add_argument("--overlay", type=Path, metavar="FILE", help="another release file to read")
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


def read_released(overlay: Path, at: Revision | None = None) -> Release | None:
    """What a release file says, in the working tree or at a revision; None before the first release.

    Raises:
        ConfigError: its environment does not exist, or the file cannot be read.
        OverlayError: it was changed by hand.
    """
    content = _read(overlay, at)
    if content is not None:
        return overlays.parse(content, str(overlay))
    # Without this, the gate would pass for a name that is misspelt.
    environment = overlay.parents[2] / "kustomization.yaml"
    if _read(environment, at) is None:
        raise ConfigError(f"there is no {environment} {f'at {at.short}' if at else 'here'}")
    return None


def _read(file: Path, at: Revision | None) -> str | None:
    try:
        content = at.file(file.as_posix()) if at else file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    return None if content is None else content.decode("utf-8", errors="replace")


def compare(
    released: Release | None,
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
    if released is None:
        return Comparison(
            passed=True,
            outcome="nothing_released",
            verdict=f"nothing was released to {environment} yet, so there is nothing to compare with",
            environment=environment,
            candidate=side,
        )
    accepted = settings.select.gate.production.accept_incomparable
    try:
        revision = Revision.find(released.revision)
        if _version_at(revision, released) == side.version:
            return Comparison(
                passed=True,
                outcome="same",
                verdict=f"{environment} runs this very model",
                environment=environment,
                candidate=side,
                production=Side.of(ours.manifest, released.revision),
            )
        return _compared(ours, revision, released, settings, environment)
    except IncomparableError as error:
        return _incomparable(side, error.production, error.reasons, accepted, environment)
    except UnreachableError as error:
        if accepted != released.version:
            raise
        theirs = Side(name="?", algorithm="model", version=released.version, commit=released.revision)
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
    released: Release,
    settings: ProductionSettings,
    environment: str,
) -> Comparison:
    store = Store()
    production = _fetch(revision, released, store)
    profile = read_profile()
    test = read_split(TEST_FILE, profile)
    _check_reproduced(candidate.manifest, profile)
    with _history(revision, store) as history:
        return comparison.compare(
            candidate,
            production,
            revision.commit,
            profile,
            test,
            history,
            Rules(settings.evaluate, settings.select.gate.production),
            environment,
        )


def _fetch(revision: Revision, released: Release, store: Store) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        return download(revision, released, Path(folder), store)


def download(revision: Revision, released: Release, folder: Path, store: Store | None = None) -> Bundle:
    """Get the verified bundle of a revision into a folder.

    Raises:
        UnreachableError, DataError: it is not to be had, or is not sound or not what was released.
    """
    store = store or Store()
    where = f"the bundle of revision {revision.short}"
    output = revision.outputs.get(BUNDLE.as_posix())
    if output is None:
        raise UnreachableError(f"dvc.lock of revision {revision.short} records no {BUNDLE}")
    members = store.read_folder(output)
    if absent := [name for name in (MODEL_FILE, MANIFEST_FILE) if name not in members]:
        raise DataError(f"{where} has no {' and no '.join(absent)}")
    manifest = store.read(members[MANIFEST_FILE])
    _check_schema_version(manifest, revision, released)
    (folder / MANIFEST_FILE).write_bytes(manifest)
    for file in {MODEL_FILE, EXPLANATION_FILE} & members.keys():
        (folder / file).write_bytes(store.read(members[file]))
    try:
        bundle = read_bundle(folder)
    except BundleError as error:
        raise DataError(f"{where} is not sound: {str(error).replace(f'{folder}/', '')}") from None
    _check_version(bundle.manifest.version, revision, released)
    return bundle


def _version_at(revision: Revision, released: Release) -> str | None:
    """The version that a revision's leaderboard names: it is in git, so an unchanged model costs no download."""
    found = board.parse(revision.file(board.LEADERBOARD_FILE.as_posix()))
    if found is None:
        return None
    _check_version(found.version, revision, released)
    return found.version


def _check_version(version: str, revision: Revision, released: Release) -> None:
    if released.version != version:
        raise DataError(
            f"the overlay says that version {released.version} runs, but its revision {revision.short} made "
            f"{version}: let `python -m deploy.release` write both"
        )


def _check_schema_version(manifest: bytes, revision: Revision, released: Release) -> None:
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


@contextmanager
def _history(revision: Revision, store: Store) -> Iterator[History]:
    with TEST_FILE.open("rb") as file:
        now = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    test = revision.outputs.get(TEST_FILE.as_posix())
    output = revision.outputs.get(TRAIN_FILE.as_posix())
    history = History(now, test.md5 if test else None)
    with ExitStack() as files:
        if output is None:
            history = replace(
                history, why_not=f"dvc.lock of revision {revision.short} records no {TRAIN_FILE}"
            )
        elif not history.same_test:
            try:
                history = replace(history, train=ParquetTable(files.enter_context(store.opened(output))))
            except UnreachableError as error:
                history = replace(history, why_not=str(error))
        yield history


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
