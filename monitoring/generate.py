"""Writes everything that follows from the objectives, the rules and the dashboards' Python; `--check` names what differs.

- `monitoring/rules/*.yaml` from the templates `*.yaml.j2` beside them, and all rules as the cluster takes them;
- the dashboards' JSON;
- the objectives' numbers in files that are otherwise written by hand, such as the canary's analysis and the documentation.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from common import files
from common.command import run
from common.errors import EspalierError
from monitoring import dashboards
from monitoring.objectives import Objectives, objectives, percent, spaced

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring/rules"
CLUSTER = ROOT / "monitoring/cluster/rules.yaml"
TEMPLATE = ".yaml.j2"
HEAD = "# Made by `make dashboards` from {}; what is changed here is lost.\n# yamllint disable rule:line-length\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.generate", description="Writes rules and dashboards."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    check = parser.parse_args().check
    generated = generate(objectives())
    differing = [path for path, text in generated.items() if _read(path) != text]
    # Grafana would still be given a file that nothing builds any more.
    stale = [path for path in dashboards.FOLDER.glob("*.json") if path not in generated]
    if check:
        if differing or stale:
            names = ", ".join(str(path.relative_to(ROOT)) for path in sorted([*differing, *stale]))
            raise EspalierError(f"{names}: not what monitoring/ says; run `make dashboards`")
        return
    for path in differing:
        files.write_text(path, generated[path])
        print(f"wrote {path.relative_to(ROOT)}")
    for path in stale:
        path.unlink()
        print(f"removed {path.relative_to(ROOT)}")


def generate(table: Objectives) -> dict[Path, str]:
    """The text of every generated file.

    Raises:
        EspalierError: a template or a file of rules cannot be read, or a file no longer has a number in its place.
    """
    rules = rule_files(table)
    return {
        **{RULES / name: text for name, text in rules.items()},
        CLUSTER: cluster_rules(rules),
        **dashboards.generate(),
        **_files_with_numbers(table),
    }


def rule_files(table: Objectives, folder: Path = RULES) -> dict[str, str]:
    """The files of rules by name: the rendered templates, and those that are written by hand."""
    environment = jinja2.Environment(
        variable_start_string="<<",
        variable_end_string=">>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        # 14.4, but 6 where the table says 6.
        finalize=lambda value: f"{value:g}" if isinstance(value, float) else value,
        autoescape=False,  # noqa: S701
    )
    environment.filters["percent"] = percent
    # As Prometheus writes the label `le`: 1.0, not 1.
    environment.filters["bound"] = str
    made = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}
    for path in folder.glob(f"*{TEMPLATE}"):
        properties = ("error_budget", "slow_budget", "windows")
        values = dict(table) | {name: getattr(table, name) for name in properties}
        try:
            text = environment.from_string(path.read_text(encoding="utf-8")).render(values)
        except jinja2.TemplateError as error:
            raise EspalierError(f"{path.name}: {error}") from None
        made[path.name.removesuffix(".j2")] = HEAD.format(f"{path.name} and ../objectives.yaml") + text
    return dict(sorted(made.items()))


def cluster_rules(rules: Mapping[str, str]) -> str:
    """The rules as the cluster takes them: one PrometheusRule for each file.

    Raises:
        EspalierError: one is not YAML with groups.
    """
    editor = YAML()
    editor.indent(mapping=2, sequence=4, offset=2)
    # Line breaks must not depend on the length of a name that `deploy.adopt` replaces.
    editor.width = 1_000_000
    editor.representer.ignore_aliases = lambda *_: True
    stream = io.StringIO()
    editor.dump_all([_manifest(name, text) for name, text in rules.items()], stream)
    return f"{HEAD.format('monitoring/rules')}{stream.getvalue()}"


def _manifest(name: str, text: str) -> dict[str, Any]:
    try:
        groups = yaml.safe_load(text)["groups"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise EspalierError(f"{name} is no file of rules: {' '.join(str(error).split())}") from None
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"espalier-{name.removesuffix('.yaml')}",
            # The same sync may install this kind.
            "annotations": {"argocd.argoproj.io/sync-options": "SkipDryRunOnMissingResource=true"},
        },
        "spec": {"groups": _readable(groups)},
    }


def _readable(value: Any) -> Any:
    """The same value, with texts of several lines written as such."""
    if isinstance(value, dict):
        return {key: _readable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value


def _files_with_numbers(table: Objectives) -> dict[Path, str]:
    made: dict[Path, str] = {}
    for file, pattern, value in numbers(table):
        path = ROOT / file
        text = made.get(path) or path.read_text(encoding="utf-8")
        found = list(re.finditer(pattern, text))
        if len(found) != 1:
            raise EspalierError(f"{file}: {len(found)} places match {pattern!r}, where {value!r} belongs")
        made[path] = text[: found[0].start(1)] + value + text[found[0].end(1) :]
    return made


def numbers(table: Objectives) -> Iterator[tuple[str, str, str]]:
    """Where files that are written by hand state an objective: file, pattern of one group, and what the group says."""
    latency, limit = table.latency, f"{table.latency.seconds:g} s"
    milliseconds = 1000 * latency.seconds
    yield "app/metrics.py", r"\nLATENCY_LIMIT = (\S+)", f"{latency.seconds:g}"
    analysis = "deploy/base/analysis.yaml"
    yield analysis, r'- name: max-error-share\n +value: "(.+)"', f"{table.canary.error_share:g}"
    yield analysis, r'- name: max-p95-seconds\n +value: "(.+)"', f"{latency.seconds:g}"
    outside = milliseconds + 1000 * table.load_test.network_seconds
    yield "compose.yaml", r"retention\.time=(\d+)d", f"{table.period_days}"
    yield ".github/workflows/load.yml", r'p95_ms:\n.+\n +default: "(.+)"', f"{outside:g}"
    page = "docs/load-testing.md"
    yield page, r"`LOAD_P95_MS` \| (.+?) \|", f"{milliseconds:g}"
    yield page, r"`LOAD_MAX_ERROR_SHARE` \| (.+?) \|", f"{table.error_budget:g}"
    page = "docs/operations.md"
    yield page, r"`error-share` \| at most (.+? %) of", percent(table.canary.error_share)
    yield page, r"`p95-seconds` \| 95 % are answered within (.+? s) \|", limit
    yield page, r"Two objectives, over (\d+) days", f"{table.period_days}"
    yield page, r"\*\*(.+? %)\*\* of the answers are no errors", percent(table.availability)
    yield page, r"and \*\*(.+? %)\*\* are given within", percent(latency.share)
    yield page, r"are given within \*\*(.+? s)\*\*", limit
    yield page, r"and still, over \| severity \|\n\|[-|]+\n((?:\|.+\n)+)", _burn_rates(table)
    yield page, r"Fewer than (\d+) failures in the long window", f"{table.minimum_failures}"
    yield page, r"Prometheus must keep (\d+) days", f"{table.period_days}"
    yield page, r"More than (.+? %) of the answers take longer than", percent(table.slow_budget)
    yield page, r"of the answers take longer than (.+? s)\.", limit
    yield (
        page,
        r"More than (.+? %) of the requests for predictions are refused",
        percent(table.rejected_share),
    )
    drift = table.drift
    yield page, r"was above (\S+) in \d+ of the last \d+ hours", f"{drift.alert:g}"
    yield page, r"was above \S+ in (\d+) of the last \d+ hours", f"{drift.beyond}"
    yield page, r"was above \S+ in \d+ of the last (\d+) hours", f"{drift.windows}"
    yield page, r"No retraining has replaced the model for (\d+) days", f"{table.model_age_days.alert}"
    page = "docs/monitoring.md"
    yield page, r"the alerts' limits: above (\S+) in \d+ of \d+ windows", f"{drift.alert:g}"
    yield page, r"the alerts' limits: above \S+ in (\d+) of \d+ windows", f"{drift.beyond}"
    yield page, r"the alerts' limits: above \S+ in \d+ of (\d+) windows", f"{drift.windows}"
    page = "docs/dashboards.md"
    yield page, r"training data: below (\S+) the inputs", f"{drift.look:g}"
    yield page, r"training, above (\S+) they are another population", f"{drift.alert:g}"


def _burn_rates(table: Objectives) -> str:
    """The rows of the documentation's table."""
    return "".join(
        f"| {row.factor:g} × | {table.period_days / row.factor:.0f} days | {spaced(row.long)} | {spaced(row.short)} | {row.severity} |\n"
        for row in table.burn_rates
    )


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    run(main)
