"""Renders every model in every environment, with every set of components, monitoring and Argo CD's part, and checks all.

Each manifest is checked against the schema of its kind and for names that lead nowhere. The rendered files are written,
to be read or compared.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.command import run
from deploy.errors import DeployError
from deploy.manifests import argocd, environment, model, monitoring, platform, render, schema, training
from deploy.manifests.documents import Document
from deploy.programs import find

OUTPUT = Path("build/manifests")
CHECKOV = "checkov==3.3.30"
"""Runs in a separate environment, because it pins older libraries than the project needs."""
TERRAFORM = Path("deploy/terraform")


class ManifestError(DeployError):
    """A manifest breaks its kind's schema, or refers to something that does not exist."""


@dataclass(frozen=True)
class Rendered:
    """The output of one kustomization, and what is wrong with it."""

    name: str
    text: str
    documents: Sequence[dict[str, Any]]
    problems: Sequence[str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.manifests", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder for the manifests (default: %(default)s)"
    )
    parser.add_argument(
        "--scan", action="store_true", help="have checkov look at them and at Terraform (20 s; needs uv)"
    )
    options = parser.parse_args()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    for stale in output.glob("*.yaml"):
        stale.unlink()
    everything = list(render_all())
    for each in everything:
        (output / f"{each.name}.yaml").write_text(each.text, encoding="utf-8")
    # Wide enough for the longest name where the output goes to a file.
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


def render_all(folder: Path = render.FOLDER) -> Iterator[Rendered]:
    """Environments and their models as committed, one with every set of components, monitoring, then Argo CD's part.

    Args:
        folder: the folder deploy/.
    """
    with render.copied(folder) as root:
        environments = render.environments(root)
        shared = {name: _environment(name, root) for name in environments}
        yield from shared.values()
        models = []
        for each in environments:
            here = [_model(each, name, root, shared[each]) for name in render.deployed(each, root)]
            models += _with_host_problems(here)
        # Components patch base, which is the same for all models: one of them is enough.
        for each in environments:
            for name in render.deployed(each, root)[:1]:
                for components in render.VARIANTS:
                    render.choose(root / "overlays" / each / name, components)
                    models.append(_model(each, name, root, shared[each], "+".join(components) or "plain"))
        yield from models
        platforms = [
            _rendered(f"platform.{name}", root / "platforms" / name, platform.problems)
            for name in render.PLATFORMS
        ]
        yield from platforms
        watching = _rendered("monitoring", folder.parent / "monitoring", monitoring.problems)
        yield watching

        admission = _rendered("admission", folder / "admission", lambda _: [])
        secrets = _rendered("secrets", folder.parent / "monitoring/secrets", monitoring.secret_problems)
        yield from (admission, secrets)
        runs = [
            _rendered(f"training.{name}", folder / "training" / name, training.problems)
            for name in render.TRAINING
        ]
        yield from runs

        def job_problems(documents: Sequence[Document]) -> list[str]:
            return training.job_problems(documents, [each.documents for each in runs])

        yield _rendered("training.job", folder / "training/job", job_problems)

        def argocd_problems(documents: Sequence[Document]) -> list[str]:
            sets = {each["metadata"]["name"] for each in documents if each["kind"] == "ApplicationSet"}
            deployed = argocd.Deployed(
                [each.documents for each in (*shared.values(), *models)],
                [
                    each.documents
                    for each in (*platforms, *([admission] if "espalier-admission" in sets else []))
                ],
                watching.documents,
                root,
                secrets.documents if "espalier-secrets" in sets else (),
                [each.documents for each in runs] if "espalier-training" in sets else (),
            )
            return argocd.problems(documents, deployed, folder)

        yield _rendered("argocd", folder / "argocd", argocd_problems)
        shutil.copytree(folder / "argocd", root / "argocd")
        render.switch_on(root / "argocd", [f"options/{each}" for each in render.OPTIONS])
        yield _rendered("argocd.options", root / "argocd", argocd_problems)


def _environment(name: str, root: Path) -> Rendered:
    return _rendered(name, root / "overlays" / name, environment.problems)


def _model(name: str, model_name: str, root: Path, shared: Rendered, variant: str = "") -> Rendered:
    def problems(documents: Sequence[Document]) -> list[str]:
        return model.problems(documents, shared.documents, model_name)

    title = ".".join(filter(None, (name, model_name, variant)))
    return _rendered(title, root / "overlays" / name / model_name, problems)


def _with_host_problems(rendered: Sequence[Rendered]) -> list[Rendered]:
    """The models of an environment, with what is wrong if two of them answer at one host."""
    owners: dict[str, str] = {}
    result = []
    for each in rendered:
        found = list(each.problems)
        for host in model.hosts(each.documents):
            if host in owners:
                found.append(f"host {host}: {owners[host]} answers there too")
            owners[host] = each.name
        result.append(replace(each, problems=found))
    return result


def _rendered(name: str, folder: Path, check: Callable[[Sequence[Document]], list[str]]) -> Rendered:
    text = render.render(folder)
    documents = render.parse(text)
    found = list(_schema_problems(documents))
    try:
        found += check(documents)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        found.append(f"the checks end at a field that is missing or of another form: {error!r}")
    return Rendered(name, text, documents, found)


def _schema_problems(documents: Sequence[Document]) -> Iterator[str]:
    for each in documents:
        for problem in schema.problems(each):
            yield f"{each.get('kind')} {each.get('metadata', {}).get('name')}: {problem}"


def _scan(output: Path) -> None:
    uv = find("uv", "checkov runs with it; call make manifests, or install uv")
    command = [uv, "tool", "run", "--from", CHECKOV, "checkov", "--config-file", ".checkov.yaml"]
    folders = ["--directory", str(output), "--directory", str(TERRAFORM)]
    if subprocess.run([*command, *folders], check=False).returncode:
        raise ManifestError(
            "checkov finds faults, above; fix them, or skip the check with a reason (.checkov.yaml says where)"
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
