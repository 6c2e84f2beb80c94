"""Report what a branch changes: parameters, data, models, and whether the champion passes the gate.

Reads  the working tree after `dvc repro`, and the merge base of the branch with --base: its files from git, and its
       outputs from DVC's cache or remote if they are available
Writes build/review/review.md    the comment of a pull request
       build/review/review.json  the same as data; `passed` is the verdict
       build/review/*.png        plots

The same two states give the same bytes. docs/reviewing.md explains the verdict.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.contract import BundleError
from common import files, overlays
from common.errors import EspalierError
from common.lock import LOCK_FILE, Entry, stages
from training.base import cli, config
from training.base.documents import parse_yaml
from training.base.errors import ConfigError, GateError
from training.custom import sources
from training.data.dataset import ORIGIN_FILE, PROFILE_FILE, RAW_FILE, TEST_FILE, TRAIN_FILE, Origin, Profile
from training.production import command as production
from training.production.command import ProductionSettings
from training.production.comparison import Comparison
from training.production.revisions import Revision, Store, UnreachableError, outputs_of
from training.results import board
from training.results.board import LEADERBOARD_FILE, Leaderboard
from training.results.report import CANDIDATES, METRICS, Report
from training.review import comment, figures
from training.review.model import Algorithm, Champion, Change, Confusion, Contestant, Outcome, Review, State
from training.sections.metrics import SECOND_SCORE

log = logging.getLogger(__name__)

FOLDER = Path("build/review")
_ADDRESS = re.compile(r"https?://[^\s()<>\"'`|\\]+\Z")


def main() -> None:
    parser = cli.parser("training.review", __doc__)
    parser.add_argument("--base", default="origin/main", metavar="REV", help="what to compare with")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="FOLDER", help=f"({FOLDER})")
    parser.add_argument(
        "--failure",
        metavar="TEXT",
        help="the output of a failed pipeline, or a file that holds it; it becomes the verdict",
    )
    parser.add_argument(
        "--no-production",
        action="store_true",
        help="do not compare with production, whose model a fork cannot fetch; the comment says so",
    )
    parser.add_argument("--artifact-url", metavar="URL", help="where the plots can be downloaded")
    parser.add_argument("--fail", action="store_true", help="exit with 1 when the verdict is not `passes`")
    arguments = parser.parse_args()
    if arguments.artifact_url and not _ADDRESS.match(arguments.artifact_url):
        raise ConfigError(f"--artifact-url {arguments.artifact_url!r} is not a web address")
    result = review(
        arguments.base,
        failure=_failure(arguments.failure),
        with_production=not arguments.no_production,
        artifact_url=arguments.artifact_url,
    )
    plots = figures.draw(result)
    result = result.model_copy(update={"plots": tuple(sorted(plots))})
    with files.replacing(arguments.output) as temporary:
        temporary.mkdir()
        for name, content in plots.items():
            (temporary / name).write_bytes(content)
        (temporary / "review.json").write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (temporary / "review.md").write_text(comment.render(result), encoding="utf-8")
    log.info("%s: %s", arguments.output / "review.md", comment.headline(result))
    if arguments.fail and not result.passed:
        raise GateError(result.reason)


def review(
    base: str,
    *,
    failure: str | None = None,
    with_production: bool = True,
    artifact_url: str | None = None,
) -> Review:
    """Compare the working tree with the merge base.

    Raises:
        UnreachableError: the base is not in this clone, or there is no dvc.lock.
    """
    tip = Revision.find(base)
    head = Revision.find("HEAD")
    before, after = _Past(tip.merge_base(head)), _Present(head)
    notes: list[str] = []
    champion_before = before.champion()
    # After a failure the leaderboard and the bundle are still the last good ones.
    champion_after = None if failure is not None else after.champion()
    algorithms = _contestants(before, after, failed=failure is not None)
    data, data_notes = _data(before, after)
    notes += data_notes
    states = []
    for side, champion in ((before, champion_before), (after, champion_after)):
        found, note = _report(side, champion)
        notes += [note] if note else []
        states.append(
            State(
                commit=side.revision.commit,
                champion=champion,
                confusion=_confusion(found) if found else None,
                interval=found.interval if found else None,
            )
        )
    if failure is not None:
        outcome, reason, comparison = "refused" if after.refused() else "broken", failure, None
    elif stale := after.stale():
        outcome, reason, comparison = "undecided", stale, None
    else:
        outcome, reason, comparison = _judge(tip, with_production=with_production)
        if not with_production:
            notes.append("Not compared with production: its model cannot be fetched from here.")
    scores = {each.score for one in algorithms for each in (one.before, one.after) if each}
    return Review(
        passed=outcome == "passes",
        outcome=outcome,
        reason=reason,
        before=states[0],
        after=states[1],
        parameters=tuple(_changes(dict(_leaves(before.settings())), dict(_leaves(after.settings())))),
        data=tuple(data),
        test_split_changed=before.digest(TEST_FILE) != after.digest(TEST_FILE),
        score_changed=len(scores) > 1,
        algorithms=tuple(algorithms),
        production=comparison,
        notes=tuple(notes),
        artifact_url=artifact_url,
        plots=(),
    )


# ------------------------------------------------------------------------------------------- two states


class _Side:
    """Reads one of the two states through `file` and `content`."""

    revision: Revision
    called: str
    outputs: Mapping[str, Entry]

    def file(self, path: Path) -> bytes | None:
        raise NotImplementedError

    def content(self, path: Path) -> bytes:
        """The content of a DVC output. Raises UnreachableError."""
        raise NotImplementedError

    def names(self, folder: Path) -> list[str]:
        raise NotImplementedError

    def digest(self, path: Path) -> str | None:
        output = self.outputs.get(path.as_posix())
        return output.md5 if output else None

    def settings(self) -> dict[str, Any]:
        """The parameters with the repository's defaults, as reports/settings.json has them."""
        raise NotImplementedError

    def leaderboard(self) -> Leaderboard | None:
        return board.parse(self.file(LEADERBOARD_FILE))

    def champion(self) -> Champion | None:
        found = self.leaderboard()
        return Champion(algorithm=found.champion, version=found.version, rule=found.rule) if found else None

    def algorithms(self) -> dict[str, Algorithm]:
        found = {}
        for name in self.names(METRICS):
            if name.endswith(".json") and (figures := _figures(self.file(METRICS / name))):
                found[name.removesuffix(".json")] = figures
        return found

    def profile(self) -> Profile:
        return Profile.model_validate_json(self.content(PROFILE_FILE))

    def origin(self) -> Origin:
        return Origin.model_validate_json(self.content(ORIGIN_FILE))


class _Past(_Side):
    called = "before"

    def __init__(self, revision: Revision) -> None:
        self.revision = revision
        self.store = Store()
        self.outputs = revision.outputs if revision.file(LOCK_FILE) is not None else {}

    def file(self, path: Path) -> bytes | None:
        return self.revision.file(path.as_posix())

    def content(self, path: Path) -> bytes:
        output = self.outputs.get(path.as_posix())
        if output is None:
            raise UnreachableError(f"there was no {path}")
        return self.store.read(output)

    def names(self, folder: Path) -> list[str]:
        return self.revision.names(folder.as_posix())

    def settings(self) -> dict[str, Any]:
        # Before there were defaults, params.yaml held everything. JSON is YAML.
        file = config.PARAMS_FILE if self.file(config.SETTINGS_FILE) is None else config.SETTINGS_FILE
        try:
            document = parse_yaml(self.file(file) or b"")
        except ValueError as error:
            raise ConfigError(f"{file} {self.called} is not YAML: {error}") from None
        return document if isinstance(document, dict) else {}


class _Present(_Side):
    called = "of this change"

    def __init__(self, revision: Revision) -> None:
        self.revision = revision
        lock = self.file(Path(LOCK_FILE))
        if lock is None:
            raise UnreachableError(
                f"there is no {LOCK_FILE} here: run `dvc repro` in the project's top folder"
            )
        self.outputs = outputs_of(lock)
        self._lock = lock

    def file(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except OSError:
            return None

    def content(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise UnreachableError(f"cannot read {path} ({error.strerror}): run `make pull`") from None

    def names(self, folder: Path) -> list[str]:
        return sorted(each.name for each in folder.glob("*.json"))

    def settings(self) -> dict[str, Any]:
        content = self.file(config.PARAMS_FILE)
        if content is None:
            return {}
        return sources.recorded(
            config.as_json(config.completed(content, f"{config.PARAMS_FILE} {self.called}"))
        )

    def refused(self) -> bool:
        """Whether the gate refused the champion: `select` then writes reports that DVC does not record."""
        found = self.leaderboard()
        if found is None or not found.missed:
            return False
        md5 = hashlib.md5(self.content(LEADERBOARD_FILE), usedforsecurity=False).hexdigest()
        return md5 != self.digest(LEADERBOARD_FILE)

    def stale(self) -> str:
        """Which parameters changed after their stages ran; empty if none."""
        now = self.settings()
        late = [
            name
            for name, stage in stages(parse_yaml(self._lock)).items()
            for key, value in stage.params.get(config.SETTINGS_FILE.as_posix(), {}).items()
            # A removed algorithm leaves its stage in the lock.
            if _at(now, key) != value and not (name.startswith("train@") and _at(now, key) is None)
        ]
        if not late:
            return ""
        return f"{config.PARAMS_FILE} was changed after {', '.join(sorted(set(late)))} ran: run `dvc repro`"


# --------------------------------------------------------------------------------------- what is compared


def _judge(tip: Revision, *, with_production: bool) -> tuple[Outcome, str, Comparison | None]:
    if not with_production:
        return "passes", "", None
    try:
        # The overlay is read at the base, so a change cannot choose what it is compared with.
        released = production.read_released(overlays.from_here("production"), tip)
        comparison = production.compare(released, config.load(ProductionSettings))
    except (EspalierError, BundleError) as error:
        return "undecided", f"not compared with production: {error}", None
    if comparison.passed:
        return "passes", "", comparison
    return "worse", comparison.verdict, comparison


def _failure(argument: str | None) -> str | None:
    """The lines of a pipeline's output that give the reason for the failure."""
    if argument is None:
        return None
    text = argument
    if "\n" not in argument and len(argument) < 4096 and Path(argument).is_file():
        text = Path(argument).read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return "\n".join(said[-3:] or lines[-10:]) or "the pipeline failed and says nothing"


def _contestants(before: _Side, after: _Side, *, failed: bool) -> list[Contestant]:
    old, new = before.algorithms(), after.algorithms()
    rank_old, rank_new = _ranks(before), {} if failed else _ranks(after)
    last = len(old) + len(new)
    names = sorted(
        {*old, *new},
        key=lambda name: (rank_new.get(name, last), -(new[name].cv if name in new else -1), name),
    )
    return [
        Contestant(
            name=name,
            before=old.get(name),
            after=new.get(name),
            rank_before=rank_old.get(name),
            rank_after=rank_new.get(name),
        )
        for name in names
    ]


def _ranks(side: _Side) -> dict[str, int]:
    found = side.leaderboard()
    return {row.algorithm: place for place, row in enumerate(found.rows, 1)} if found else {}


def _figures(content: bytes | None) -> Algorithm | None:
    """None for a file that no training stage wrote."""
    try:
        document = json.loads(content or b"")
        (score,) = set(document["cv"]) - {"std"}
        test = document["test"]
        second = SECOND_SCORE["classification" if "log_loss" in test else "regression"]
        return Algorithm(
            score=score,
            cv=document["cv"][score],
            cv_std=document["cv"]["std"],
            test=test[score],
            test_low=test[f"{score}_low"],
            test_high=test[f"{score}_high"],
            second=second,
            second_test=test[second],
        )
    except (ValueError, KeyError, TypeError):
        return None


def _report(side: _Side, champion: Champion | None) -> tuple[Report | None, str]:
    if champion is None:
        return None, ""
    try:
        content = side.content(CANDIDATES / champion.algorithm / "report.json")
        return Report.model_validate_json(content), ""
    except (UnreachableError, ValidationError) as error:
        return None, f"No figures of the champion {side.called}: {_brief(error)}."


def _confusion(champion: Report) -> Confusion | None:
    """None for a regression."""
    if not champion.confusion:
        return None
    return Confusion(classes=tuple(champion.per_class), counts=champion.confusion)


def _data(before: _Side, after: _Side) -> tuple[list[Change], list[str]]:
    """Where the data differs: digests from dvc.lock, the rest from the profiles if both can be read."""
    changes = [
        Change(name=f"{path} (md5)", before=_short(before.digest(path)), after=_short(after.digest(path)))
        for path in (RAW_FILE, TRAIN_FILE, TEST_FILE)
        if before.digest(path) != after.digest(path)
    ]
    files_differ = any(before.digest(path) != after.digest(path) for path in (ORIGIN_FILE, PROFILE_FILE))
    if not changes and not files_differ:
        return [], []
    sides: list[dict[str, str]] = []
    for side in (before, after):
        try:
            sides.append(dict(_described(side.origin(), side.profile())))
        except (UnreachableError, ValidationError) as error:
            return changes, [f"Of the data only the digests are compared: {_brief(error)}."]
    return [*changes, *_changes(*sides)], []


def _described(origin: Origin, profile: Profile) -> Iterator[tuple[str, str]]:
    yield "source", origin.source
    yield "rows of the source", f"{origin.rows:,}"
    yield "columns of the source", ", ".join(origin.columns)
    yield "rows used", f"{profile.rows:,}"
    yield "duplicates dropped", f"{profile.duplicates_dropped:,}"
    yield "rows to train", f"{profile.train_rows:,}"
    yield "rows to test", f"{profile.test_rows:,}"
    yield "target", profile.target
    for name, share in zip(profile.classes, profile.class_shares, strict=True):
        yield f"class {name}", f"{share:.1%}"
    for each in profile.features:
        if each.type == "number":
            unit = f" {each.unit}" if each.unit else ""
            values = f"{each.minimum:g} to {each.maximum:g}{unit}, typically {each.typical:g}"
        elif each.type == "datetime":
            values = f"{each.span} in {each.timezone}, as {', '.join(each.parts)}"
        else:
            values = f"one of {', '.join(each.categories)}"
        absent = profile.missing.get(each.name, 0)
        yield f"feature {each.name}", f"{each.type}: {values}" + (f"; {absent:,} missing" if absent else "")


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """The differences, in the order of the newer side; removed names come last."""
    for name in [*after, *(each for each in before if each not in after)]:
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        # True, 1 and 1.0 are equal in Python, but different parameters.
        if _written(old) != _written(new):
            yield Change(name=name, before=_written(old), after=_written(new))


_ABSENT = object()


def _written(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested keys, joined by dots, with their values; a list is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, value


def _at(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def _short(md5: str | None) -> str | None:
    return md5[:10] if md5 else None


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "it was written by another version of this project"
    return str(error).rstrip(".")
