"""The loader of PyYAML that reads YAML of the project: safe, and in C where that is installed."""

from __future__ import annotations

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C takes a tenth of the time; a PyYAML that was built without libyaml has none."""
