"""The dashboards as code: each module builds one, and `make dashboards` writes its JSON beside it.

Grafana reads the JSON; people read and change the Python. The JSON is sorted and independent of time and machine, so a
review shows only differences that somebody made.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards import delivery, load, model, overview, service

FOLDER = Path(__file__).parent

_MODULES = {"overview": overview, "service": service, "model": model, "delivery": delivery, "load": load}


def generate() -> dict[Path, str]:
    """The text of every dashboard's file."""
    return {FOLDER / f"{name}.json": _text(module.build()) for name, module in _MODULES.items()}


def _text(dashboard: Dashboard) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
