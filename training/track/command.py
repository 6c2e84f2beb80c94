"""Mirror the runs to trackers: one run per algorithm, one for the data, one for the comparison.

Reads  candidates/*/report.json, candidates/*/plots/*.csv, model/, reports/leaderboard.json, reports/explore/,
       params.yaml (name, track), wandb/, mlruns/
Writes wandb/, mlruns/: records on this machine, and tracked.json, which says what is recorded where; nothing that git or
       DVC keep

Weights & Biases is online if there is a key (WANDB_API_KEY or a netrc login), and WANDB_MODE (online, offline or disabled)
overrides this. MLflow is online if MLFLOW_TRACKING_URI names a server. Otherwise runs are recorded on this machine. Recorded
runs are skipped, and earlier ones are sent as soon as there is a server. What a tracker missed because it was off is in git and
DVC, and --since records it. Nothing depends on a tracker: if it fails, hangs or is not installed, there is a warning and exit
code 0.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from app.contract import BundleError
from common.errors import EspalierError
from training.base import cli, config
from training.base.section import Settings
from training.production.revisions import Revision
from training.sections.track import TrackSettings
from training.track import past
from training.track.handover import hand_over
from training.track.ledger import OFFLINE, Ledger, locked
from training.track.plan import Plan, Run, read_plan
from training.track.recorder import Recorder, TrackingError
from training.track.recorders import RECORDERS

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Recorder)


class TrackStageSettings(Settings):
    name: str
    track: TrackSettings


def main() -> None:
    parser = cli.parser("training.track", __doc__)
    parser.add_argument(
        "--to",
        action="append",
        choices=list(RECORDERS),
        metavar="TRACKER",
        help=f"{' or '.join(RECORDERS)}, once or more (default: track.to in params.yaml)",
    )
    parser.add_argument(
        "--since", metavar="REV", help="record the results of this commit and of those after it, too"
    )
    arguments = parser.parse_args()
    settings = config.load(TrackStageSettings)
    since = Revision.find(arguments.since) if arguments.since else None
    names = list(dict.fromkeys(arguments.to or settings.track.to))
    if not names:
        log.info("tracking is off (track.to is empty)")
        return
    recorders = {name: make_recorder(RECORDERS[name], settings.name, settings.track) for name in names}
    for name in [each for each, recorder in recorders.items() if recorder.mode(os.environ) == "disabled"]:
        log.info("tracking is off (%s_MODE=disabled)", name.upper())
        del recorders[name]
    if recorders:
        track_everywhere(read_plan(settings.name), recorders)
    if recorders and since:
        track_past(settings.name, recorders, since)


def track_everywhere(plan: Plan, recorders: Mapping[str, Recorder], when: str = "") -> None:
    for name, recorder in recorders.items():
        try:
            log.info("%s%s", when, track(plan, recorder))
        except TrackingError as error:
            log.warning("warning: not tracked in %s: %s; nothing depends on it", name, error)


def track_past(name: str, recorders: Mapping[str, Recorder], since: Revision) -> None:
    """Record the results of earlier commits, the newest first: a run of several comparisons is in the last one's group."""
    for revision in past.revisions(since):
        try:
            with past.plan_of(revision, name) as plan:
                track_everywhere(plan, recorders, f"{revision.short}: ")
        except (EspalierError, BundleError) as error:
            log.warning("warning: %s: not tracked: %s", revision.short, error)


def make_recorder(kind: type[R], name: str, settings: TrackSettings) -> R:
    folder = kind.default_folder(os.environ)
    return kind(name, settings.project, settings.entity, settings.timeout_seconds, str(folder))


def track(plan: Plan, recorder: Recorder) -> str:
    """Record the runs that are not recorded yet, and say where they all are.

    If the server does not accept them, there is a warning; they are recorded on this machine and sent the next time.

    Raises:
        TrackingError: nothing could be recorded.
    """
    with locked(recorder.folder) as lock:
        ledger = Ledger.read(recorder, lock)
        if recorder.mode(os.environ) == "online":
            try:
                return _send(plan, recorder, ledger)
            except TrackingError as error:
                log.warning("warning: not sent: %s; the next `make track` tries again", error)
        return _record(plan, recorder, ledger)


def _send(plan: Plan, recorder: Recorder, ledger: Ledger) -> str:
    place = recorder.place(os.environ)
    runs = [each for each in plan.runs if not ledger.has(place, plan, each.id)]
    earlier = ledger.unsent(place, {each.id for each in plan.runs})
    if runs or earlier:
        recorder.check_reachable(os.environ)
        unsent = hand_over(replace(plan, runs=runs), recorder, "online", ledger.lock, list(earlier))
        sent = {id: group for id, group in earlier.items() if id not in unsent}
        ledger.add(place, sent | {each.id: plan.group for each in runs})
        if unsent:
            reasons = "; ".join(f"{id}: {reason}" for id, reason in unsent.items())
            log.warning("warning: earlier runs are not sent: %s", reasons)
    return f"{_count(plan, runs)} at {place}"


def _record(plan: Plan, recorder: Recorder, ledger: Ledger) -> str:
    place = recorder.place(os.environ)
    runs = [
        each
        for each in plan.runs
        # Sent, or completely recorded in a record that still exists.
        if not ledger.has(place, plan, each.id)
        and not (ledger.has(OFFLINE, plan, each.id) and recorder.has_record(each.id))
    ]
    if runs:
        hand_over(replace(plan, runs=runs), recorder, "offline", ledger.lock)
        ledger.add(OFFLINE, {each.id: plan.group for each in runs})
    return f"{_count(plan, runs)} offline: {recorder.hint()}"


def _count(plan: Plan, added: Sequence[Run]) -> str:
    return f"tracked {len(plan.runs)} runs in group {plan.group}, {len(added)} of them now,"
