"""Mirror the runs to Weights & Biases: one per algorithm, one for the data, one for the comparison.

Reads  candidates/*/report.json, candidates/*/plots/*.csv, model/, reports/leaderboard.json, reports/explore/,
       params.yaml (name, track), wandb/
Writes wandb/: offline records, and tracked.json, which says what is recorded where; nothing that git or DVC keep

It is online if there is a key (WANDB_API_KEY or a netrc login) and offline without one. WANDB_MODE (online, offline or
disabled) overrides this. Recorded runs are skipped, and earlier offline records are sent as soon as there is a key.
Nothing depends on the tracker: if it fails, hangs or is not installed, there is a warning and exit code 0.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from training.base import cli, config
from training.base.section import Settings
from training.sections.track import TrackSettings
from training.track.handover import check_reachable, hand_over
from training.track.ledger import OFFLINE, SERVER, Ledger, TrackingError, locked
from training.track.plan import Plan, Run, read_plan

log = logging.getLogger(__name__)
Mode = Literal["online", "offline", "disabled"]
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


class TrackStageSettings(Settings):
    name: str
    track: TrackSettings


def main() -> None:
    cli.parser("training.track", __doc__).parse_args()
    settings = config.load(TrackStageSettings)
    mode = choose_mode(os.environ)
    if mode == "disabled":
        log.info("tracking is off (WANDB_MODE=disabled)")
        return
    plan = read_plan(settings.name)
    try:
        log.info("%s", track(plan, settings.track, mode))
    except TrackingError as error:
        log.warning("warning: not tracked: %s; nothing depends on it", error)


def track(plan: Plan, settings: TrackSettings, mode: Mode) -> str:
    """Record the runs that are not recorded yet, and say where they all are.

    If the server does not accept them, there is a warning; they are recorded offline and sent the next time.

    Raises:
        TrackingError: nothing could be recorded.
    """
    folder = Path(os.environ.get("WANDB_DIR") or ".").absolute() / "wandb"
    with locked(folder) as lock:
        ledger = Ledger.read(folder, lock, settings)
        if mode == "online":
            try:
                return _send(plan, settings, ledger)
            except TrackingError as error:
                log.warning("warning: not sent: %s; the next `make track` tries again", error)
        return _record(plan, settings, ledger)


def _send(plan: Plan, settings: TrackSettings, ledger: Ledger) -> str:
    runs = [each for each in plan.runs if not ledger.is_sent(plan.group, each.id)]
    earlier = ledger.unsent({each.id for each in plan.runs})
    if runs or earlier:
        check_reachable(os.environ)
        answer = hand_over(replace(plan, runs=runs), settings, "online", ledger, earlier)
        ledger.add(ledger.server, plan.group, runs)
        if "unsent" in answer:
            log.warning("warning: earlier runs are not sent: %s", answer["unsent"])
    return f"{_count(plan, runs)} at {ledger.server}"


def _record(plan: Plan, settings: TrackSettings, ledger: Ledger) -> str:
    runs = [each for each in plan.runs if not ledger.is_recorded(plan.group, each.id)]
    if runs:
        hand_over(replace(plan, runs=runs), settings, "offline", ledger)
        ledger.add(OFFLINE, plan.group, runs)
    folder = os.path.relpath(ledger.folder) if ledger.folder.is_relative_to(Path.cwd()) else ledger.folder
    return (
        f"{_count(plan, runs)} offline: `wandb leet {folder}` shows them, `make track` with a key sends them"
    )


def _count(plan: Plan, added: Sequence[Run]) -> str:
    return f"tracked {len(plan.runs)} runs in group {plan.group}, {len(added)} of them now,"


def choose_mode(environment: Mapping[str, str]) -> Mode:
    """The mode that the environment asks for; by default, online if there is a key."""
    wanted = environment.get("WANDB_MODE", "").strip().lower()
    if wanted in MODES:
        return MODES[wanted]
    if wanted:
        log.warning("warning: WANDB_MODE=%s is not known: online, offline and disabled are", wanted)
    if environment.get("WANDB_DISABLED", "").strip().lower() in {"true", "1", "yes"}:
        return "disabled"
    return "online" if _has_key(environment) else "offline"


def _has_key(environment: Mapping[str, str]) -> bool:
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or SERVER).netloc
    named = environment.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            login = netrc.netrc(str(path)).authenticators(host)
            if login is not None and login[2]:
                return True
    return False
