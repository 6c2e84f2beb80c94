"""Renders every environment with every set of components, what watches them, and what Argo CD is given; checks it all.

Strictly against the schema of each kind, and for names that lead nowhere. Writes what is rendered, to be read or
compared.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.command import run
from deploy import applications, references, render, validate, watchers
from deploy.errors import DeployError

OUTPUT = Path("build/manifests")
CHECKOV = "checkov==3.3.30"
"""In an environment of its own: it pins libraries that others here need newer."""


class ManifestError(DeployError):
    """A manifest is not what its kind demands, or refers to what is not there."""


@dataclass(frozen=True)
class Rendered:
    """What one kustomization makes, and what is wrong with it."""

    name: str
    text: str
    documents: Sequence[dict[str, Any]]
    problems: Sequence[str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.manifests", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder for the manifests (default: %(default)s)"
    )
    parser.add_argument("--scan", action="store_true", help="have checkov look at them too (10 s; needs uv)")
    options = parser.parse_args()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    for stale in output.glob("*.yaml"):
        stale.unlink()
    everything = list(render_all())
    for each in everything:
        (output / f"{each.name}.yaml").write_text(each.text, encoding="utf-8")
    # Wide enough for its longest name also where the output goes to a file.
    Console(width=max(Console().width, 100)).print(_table(everything))
    for each in everything:
        for problem in each.problems:
            print(f"{each.name}: {problem}", file=sys.stderr)
    wrong = sum(len(each.problems) for each in everything)
    if wrong:
        raise ManifestError(f"{wrong} problems, listed above")
    print(f"{sum(len(each.documents) for each in everything)} manifests in {output}: all as they should be")
    if options.scan:
        _scan(output)


def render_all() -> Iterator[Rendered]:
    """Both environments as committed, then with every set of components, then what watches them, then Argo CD's part."""
    environments: list[Rendered] = []
    for environment in render.ENVIRONMENTS:
        environments.append(_environment(environment, render.overlay(environment)))
    for components in render.VARIANTS:
        with render.variant(components) as root:
            for environment in render.ENVIRONMENTS:
                name = f"{environment}.{'+'.join(components) or 'plain'}"
                environments.append(_environment(name, render.overlay(environment, root)))
    yield from environments
    text = render.render(render.MONITORING)
    watching = render.parse(text)
    yield Rendered("monitoring", text, watching, [*_schema_problems(watching), *watchers.problems(watching)])
    text = render.render(render.ARGOCD)
    documents = render.parse(text)
    problems = [
        *_schema_problems(documents),
        *applications.problems(documents, [e.documents for e in environments], watching),
    ]
    yield Rendered("argocd", text, documents, problems)


def _environment(name: str, folder: Path) -> Rendered:
    text = render.render(folder)
    documents = render.parse(text)
    return Rendered(name, text, documents, [*_schema_problems(documents), *references.problems(documents)])


def _schema_problems(documents: Sequence[dict[str, Any]]) -> Iterator[str]:
    for each in documents:
        for problem in validate.problems(each):
            yield f"{each.get('kind')} {each.get('metadata', {}).get('name')}: {problem}"


def _scan(output: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise ManifestError(
            "uv is not installed, which checkov is run with: call make manifests, or install uv"
        )
    command = [uv, "tool", "run", "--from", CHECKOV, "checkov", "--config-file", ".checkov.yaml"]
    if subprocess.run([*command, "--directory", str(output)], check=False).returncode:
        raise ManifestError(
            "checkov finds fault, above; mend it, or skip the check in .checkov.yaml with a reason"
        )
    print("checkov finds no fault")


def _table(everything: Sequence[Rendered]) -> Table:
    table = Table(
        "manifests", "workload", "way in", "kinds", "documents", "problems", box=None, pad_edge=False
    )
    for each in everything:
        kinds = {document["kind"] for document in each.documents}
        table.add_row(
            each.name,
            ", ".join(sorted(kinds & {"Rollout", "Deployment"})) or "–",
            ", ".join(sorted(kinds & {"Ingress", "HTTPRoute"})) or "–",
            str(len(kinds)),
            str(len(each.documents)),
            str(len(each.problems)),
        )
    return table


if __name__ == "__main__":
    run(main)
