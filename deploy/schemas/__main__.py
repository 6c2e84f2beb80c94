"""Makes the JSON schemas of custom resources from the TypeScript types in npm's @kubernetes-models packages, or from their definitions.

It is run to raise a version or to add a kind. The schemas are committed, so that manifests can be checked without node.
Objects allow only fields of the types. Kubernetes' own definitions (pod templates, metadata) are referred to: the check
takes them from kubernetes-validate.

The types lack the values that the server fills in. Those come from the definitions in each project's Go module, and are
written to defaults.json: by kind, the path of each field in a list, and its value.

The schema of compose.yaml is copied from the Go module of docker compose, without its descriptions.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from common.command import run
from deploy.programs import call, find

FOLDER = Path(__file__).parent
DEFAULTS = FOLDER / "defaults.json"
GENERATOR = "ts-json-schema-generator@2.4.0"


@dataclass(frozen=True)
class Package:
    """An npm package and the Go module that it describes."""

    name: str
    version: str
    describes: str
    group: str
    api_version: str
    kinds: tuple[str, ...]
    module: str
    """The Go module with the kinds' definitions, and its version."""
    definitions: str
    """Where they are in it."""

    @property
    def npm(self) -> str:
        return f"@kubernetes-models/{self.name}"


PACKAGES = (
    Package(
        "argo-cd",
        "4.0.0",
        "Argo CD 3",
        "argoproj.io",
        "v1alpha1",
        ("Application", "ApplicationSet", "AppProject"),
        "github.com/argoproj/argo-cd/v3@v3.5.1",
        "manifests/crds",
    ),
    Package(
        "argo-rollouts",
        "2.0.0",
        "Argo Rollouts 1.9",
        "argoproj.io",
        "v1alpha1",
        ("AnalysisTemplate", "Rollout"),
        "github.com/argoproj/argo-rollouts@v1.9.0",
        "manifests/crds",
    ),
    Package(
        "prometheus-operator",
        "6.0.0",
        "Prometheus operator",
        "monitoring.coreos.com",
        "v1",
        ("PrometheusRule", "ServiceMonitor"),
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
    ),
    Package(
        "gateway-api",
        "2.0.0",
        "Gateway API 1",
        "gateway.networking.k8s.io",
        "v1",
        ("HTTPRoute",),
        "sigs.k8s.io/gateway-api@v1.6.3",
        "config/crd/standard",
    ),
)


@dataclass(frozen=True)
class Definitions:
    """A Go module, or a package of PyPI, with the definitions of kinds for which npm has no current types."""

    describes: str
    license: str
    group: str
    api_version: str
    kinds: tuple[str, ...]
    module: str
    definitions: str
    provider: str | None = None
    """Of the providers that `spec.provider` may have, the one that is used here: the others are nine tenths of the file."""


DEFINITIONS = (
    Definitions(
        "Kyverno 1.19",
        "Apache-2.0",
        "policies.kyverno.io",
        "v1",
        ("ImageValidatingPolicy",),
        "github.com/kyverno/kyverno@v1.19.1",
        "config/crds/policies.kyverno.io",
    ),
    Definitions(
        "External Secrets Operator 1.3",
        "Apache-2.0",
        "external-secrets.io",
        "v1",
        ("ExternalSecret", "SecretStore"),
        "github.com/external-secrets/external-secrets@v1.3.2",
        "config/crds/bases",
        "aws",
    ),
    Definitions(
        "Karpenter 1",
        "Apache-2.0",
        "karpenter.sh",
        "v1",
        ("NodePool",),
        "sigs.k8s.io/karpenter@v1.8.2",
        "pkg/apis/crds",
    ),
    Definitions(
        "Dask operator 2026.3",
        "BSD-3-Clause",
        "kubernetes.dask.org",
        "v1",
        ("DaskJob",),
        "dask-kubernetes==2026.3.0",
        "dask_kubernetes/operator/customresources",
    ),
)
HANDWRITTEN = (
    "eks.amazonaws.com_v1_IngressClassParams",
    "elbv2.k8s.aws_v1beta1_IngressClassParams",
    "railway",
)
"""Schemas of kinds and of a file, railway.json, whose definition no registry has."""
COMPOSE_MODULE = "github.com/compose-spec/compose-go/v2@v2.16.2"
"""The Go module by which docker compose reads its files, with their schema (Apache-2.0)."""
COMPOSE = FOLDER / "compose-spec.json"
KUBERNETES = "https://kubernetes.io/api/_definitions.json#/$defs/"
"""How kubernetes-validate names Kubernetes' own definitions."""
_FROM_KUBERNETES = {
    "IPodTemplateSpec": "io.k8s.api.core.v1.PodTemplateSpec",
    "IJobSpec": "io.k8s.api.batch.v1.JobSpec",
    "IObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "ILabelSelector": "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
}


def main() -> None:
    argparse.ArgumentParser(prog="python -m deploy.schemas", description=__doc__).parse_args()
    npm = find("npm", "schemas are made from npm packages; install node 20 or later")
    go = find("go", "defaults are read from Go modules; install Go 1.21 or later")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
        wanted = [f"{package.npm}@{package.version}" for package in PACKAGES]
        call(
            [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", GENERATOR, *wanted],
            cwd=folder,
            whole=True,
        )
        for package in PACKAGES:
            for kind in package.kinds:
                path = FOLDER / file_name(package.group, package.api_version, kind)
                path.write_text(
                    json.dumps(_schema(package, kind, folder), indent=1, sort_keys=True) + "\n",
                    encoding="utf-8",
                )
                print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
        found: dict[str, dict[str, Any]] = {}
        for source in (*PACKAGES, *DEFINITIONS):
            if "==" in source.module:
                place = folder / source.group
                uv = find("uv", "definitions in packages of PyPI are downloaded with it")
                call([uv, "pip", "install", "--no-deps", f"--target={place}", source.module], whole=True)
            else:
                told = call([go, "mod", "download", "-json", source.module], cwd=folder, whole=True)
                place = Path(json.loads(told)["Dir"])
            for kind in source.kinds:
                defined = _defined(source, kind, place / source.definitions)
                name = file_name(source.group, source.api_version, kind)
                found[name.removesuffix(".json")] = _defaults(defined)
                if isinstance(source, Definitions):
                    schema = _strict(source, kind, defined)
                    (FOLDER / name).write_text(
                        json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8"
                    )
                    print(f"{name}: {(FOLDER / name).stat().st_size / 1024:.0f} KiB")
    told = call([go, "mod", "download", "-json", COMPOSE_MODULE], whole=True)
    described = json.loads((Path(json.loads(told)["Dir"]) / "schema/compose-spec.json").read_text("utf-8"))
    origin = COMPOSE_MODULE.replace("@", " ")
    described = {"$comment": f"Made by python -m deploy.schemas from {origin} (Apache-2.0)", **described}
    COMPOSE.write_text(json.dumps(_undescribed(described), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    DEFAULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{DEFAULTS.name}: {sum(map(len, found.values()))} defaults")


def file_name(group: str, api_version: str, kind: str) -> str:
    return f"{group}_{api_version}_{kind}.json"


def _schema(package: Package, kind: str, folder: Path) -> dict[str, Any]:
    module = f"{package.npm}/{package.group}/{package.api_version}/{kind}"
    (folder / "root.ts").write_text(
        f'import {{ I{kind} }} from "{module}";\nexport type Root = I{kind};\n', encoding="utf-8"
    )
    options = {"module": "esnext", "moduleResolution": "bundler", "target": "es2022", "strict": True}
    (folder / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": {**options, "skipLibCheck": True, "types": []}, "files": ["root.ts"]}),
        encoding="utf-8",
    )
    program = str(folder / "node_modules" / ".bin" / "ts-json-schema-generator")
    made = call(
        [program, "--path", "root.ts", "--tsconfig", "tsconfig.json", "--type", "Root"],
        cwd=folder,
        whole=True,
    )
    definitions: dict[str, Any] = {
        name: _simplified(each) for name, each in json.loads(made)["definitions"].items() if name != "Root"
    }
    root = definitions.pop(f"I{kind}")
    # Only controllers write a status.
    root["properties"].pop("status", None)
    needed: dict[str, Any] = {}
    _collect(root, definitions, needed)
    return {
        "$comment": f"Made by python -m deploy.schemas from {package.npm} {package.version} (MIT), "
        f"the types of {package.describes}",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "definitions": needed,
    }


def _defined(source: Package | Definitions, kind: str, folder: Path) -> dict[str, Any]:
    """The schema in the definition of a kind."""
    text = next(
        t
        for f in sorted(folder.glob("*.yaml"))
        if f"\n    kind: {kind}\n" in (t := f.read_text(encoding="utf-8"))
        and f"\n  group: {source.group}\n" in t
    )
    versions = YAML(typ="safe", pure=True).load(text)["spec"]["versions"]
    schema = next(each["schema"] for each in versions if each["name"] == source.api_version)
    defined: dict[str, Any] = _resolved(schema["openAPIV3Schema"], folder)
    return defined


def _resolved(schema: Any, folder: Path) -> Any:
    """With what it refers to in other files of the folder in place; Kubernetes' own definitions become references to those."""
    if isinstance(schema, list):
        return [_resolved(each, folder) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        file, _, name = str(schema["$ref"]).partition("#/definitions/")
        if name.startswith("io.k8s."):
            return {"$ref": KUBERNETES + name}
        text = (folder / file.rpartition("/")[2]).read_text(encoding="utf-8")
        return _resolved(YAML(typ="safe", pure=True).load(text)["definitions"][name], folder)
    return {key: _resolved(value, folder) for key, value in schema.items()}


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """The values that the server fills in inside lists, which Argo CD compares as a whole."""
    return {
        path: value
        for path, value in _filled_in(schema, "")
        if "[]" in path and not path.startswith("status")
    }


def _strict(source: Definitions, kind: str, defined: dict[str, Any]) -> dict[str, Any]:
    """A definition as a JSON schema that allows no other fields."""
    schema: dict[str, Any] = _closed(defined)
    schema["properties"].pop("status", None)
    schema["properties"] |= {
        "apiVersion": {"const": f"{source.group}/{source.api_version}"},
        "kind": {"const": kind},
        "metadata": {"$ref": KUBERNETES + _FROM_KUBERNETES["IObjectMeta"]},
    }
    provider = schema["properties"]["spec"]["properties"].get("provider")
    if source.provider and provider:
        provider["properties"] = {source.provider: provider["properties"][source.provider]}
    module, version = re.split("@|==", source.module)
    return {
        "$comment": f"Made by python -m deploy.schemas from {module} {version} ({source.license}), the definitions of "
        f"{source.describes}",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "required": ["apiVersion", "kind", "metadata", "spec"],
    }


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {
        key: {name: _closed(each) for name, each in value.items()} if key == "properties" else _closed(value)
        for key, value in schema.items()
        if key not in ("description", "default", "format") and not key.startswith("x-kubernetes")
    }
    if "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return closed


def _filled_in(schema: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    if "default" in schema:
        yield path, schema["default"]
    for name, each in schema.get("properties", {}).items():
        yield from _filled_in(each, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from _filled_in(schema["items"], f"{path}[]")


def _simplified(schema: Any) -> Any:
    """The schema without descriptions, with references to Kubernetes' definitions, and anything where `{}` stood."""
    if isinstance(schema, list):
        return [_simplified(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if (
        schema.get("type") == "object"
        and not schema.get("properties")
        and not schema.get("additionalProperties")
    ):
        return True
    reference = schema.get("$ref", "").removeprefix("#/definitions/")
    if reference in _FROM_KUBERNETES:
        return {"$ref": KUBERNETES + _FROM_KUBERNETES[reference]}
    return {
        # Under `properties` a field may well be called description.
        key: {name: _simplified(each) for name, each in value.items()}
        if key == "properties"
        else _simplified(value)
        for key, value in schema.items()
        if key != "description" or not isinstance(value, str)
    }


def _undescribed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_undescribed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # Under `properties` a field may well be called description; it is no text.
    return {
        key: _undescribed(value)
        for key, value in schema.items()
        if key != "description" or not isinstance(value, str)
    }


def _collect(schema: Any, definitions: dict[str, Any], needed: dict[str, Any]) -> None:
    """Add every definition that the schema refers to, directly or not."""
    if isinstance(schema, list):
        for each in schema:
            _collect(each, definitions, needed)
    elif isinstance(schema, dict):
        name = str(schema.get("$ref", "")).removeprefix("#/definitions/")
        if name in definitions and name not in needed:
            needed[name] = definitions[name]
            _collect(definitions[name], definitions, needed)
        for each in schema.values():
            _collect(each, definitions, needed)


if __name__ == "__main__":
    run(main)
