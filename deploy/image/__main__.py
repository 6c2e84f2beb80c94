"""Builds the image of a model's service, pushes it, and shows what is in it."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common import files, models
from common.command import run
from deploy.ci import steps
from deploy.image.builders import BUILDERS, Builder, Request, choose
from deploy.image.source import ImageError, Source, declared_base, read_source
from deploy.registry import Registry

ROOT = Path(__file__).parents[2]
RECORDS = Path("build/images")

_REFERENCE = re.compile(
    r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})"
)


@dataclass(frozen=True)
class Record:
    """`build/images/MODEL.json`: the model's last build, for later steps."""

    reference: str
    digest: str
    """Of the manifest; after the push, the registry's, by which the image is deployed."""
    id: str
    revision: str
    model_name: str
    model_version: str
    model_digest: str
    tool: str
    base: str
    bytes: int
    pushed: str | None = None
    """`REGISTRY/NAME@sha256:…`, after the push."""


def build(
    source: Source,
    builder: Builder,
    reference: str,
    base: str | None,
    *,
    cache: bool,
    arguments: tuple[str, ...],
) -> Record:
    """Build the image and describe it.

    Raises:
        ImageError: the builder failed.
    """
    named = base or declared_base(source.root)
    image = builder.build(
        Request(
            root=source.root,
            reference=reference,
            base=base,
            labels=source.labels(named),
            build_arguments=source.build_arguments(),
            epoch=source.epoch,
            cache=cache,
            arguments=arguments,
        )
    )
    return Record(
        reference=reference,
        digest=image.digest,
        id=image.id,
        revision=source.revision,
        model_name=source.manifest.name,
        model_version=source.manifest.version,
        model_digest=source.manifest.digest,
        tool=builder.name,
        base=named,
        bytes=image.bytes,
    )


def push(record: Record, builder: Builder, *, replace_tag: bool = False) -> Record:
    """Push a build. It succeeds too if the registry has the same image under the tag already.

    Raises:
        ImageError: the registry refuses, or has another image under this tag.
        RegistryError: the registry cannot be asked.
    """
    if builder.image(record.reference).id != record.id:
        raise ImageError(f"{record.reference} is no longer the image that was built: build it again")
    name, _, tag = record.reference.rpartition(":")
    host, _, path = name.partition("/")
    with Registry() as registry:
        digest = registry.digest_of(host, path, tag)
        if digest is None or (replace_tag and not _same(record, builder, name, digest)):
            try:
                digest = builder.push(record.reference)
            except ImageError:
                # Another process may have pushed it since, and an immutable tag refuses a second push.
                digest = registry.digest_of(host, path, tag)
                if digest is None or not _same(record, builder, name, digest):
                    raise
        elif not _same(record, builder, name, digest):
            raise ImageError(
                f"{name} has another image under the tag {tag}, {digest}: a commit has one image. Was it built on "
                "another base, or by another version of the builder? --replace puts this one in its place"
            )
    return replace(record, digest=digest, pushed=f"{name}@{digest}")


def _same(record: Record, builder: Builder, name: str, digest: str) -> bool:
    """Whether an image in a registry is the one that was built, however its layers are packed."""
    return digest == record.digest or builder.pull(f"{name}@{digest}").id == record.id


def record_file(name: str, root: Path = ROOT) -> Path:
    """The record of a model's last build."""
    return root / RECORDS / f"{name}.json"


def read_record(name: str, root: Path = ROOT) -> Record:
    """A model's last build.

    Raises:
        ImageError: there is none.
    """
    path = record_file(name, root)
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ImageError(f"{path} is not there: `make image MODEL={name}` makes it") from None
    except (ValueError, TypeError):
        raise ImageError(f"{path} cannot be read: build again") from None


def main(arguments: list[str] | None = None, root: Path = ROOT) -> None:
    options = _parser().parse_args(arguments)
    selected = models.select(options.model, root)
    if len(selected) > 1 and (options.command == "build" and options.tag):
        raise ImageError(
            f"{options.tag} is the name of one image, and each model has its own: leave --tag out"
        )
    for name, folder in selected.items():
        if options.command == "build":
            record = _build(options, root, name, models.further(folder))
            files.write_json(record_file(name, root), asdict(record))
            print(_described(record))
        elif options.command == "push":
            record = read_record(name, root)
            record = push(record, choose(options.tool or record.tool), replace_tag=options.replace)
            files.write_json(record_file(name, root), asdict(record))
            print(record.pushed)
            steps.set_output(image=str(record.pushed), digest=record.digest)
        else:
            tool, reference = options.tool, options.reference
            if reference is None:
                record = read_record(name, root)
                tool, reference = tool or record.tool, record.reference
            print(json.dumps(asdict(choose(tool).image(reference)), indent=2))


def _build(options: argparse.Namespace, root: Path, name: str, model: str | None) -> Record:
    source = read_source(root, model)
    if source.manifest.name != name:
        raise ImageError(
            f"{source.bundle} is a bundle of {source.manifest.name}, and the model is called {name}: run `make repro`"
        )
    if source.differences:
        what = f"not as in commit {source.commit[:12]}: {', '.join(source.differences)}"
        if options.strict:
            raise ImageError(f"{what}; commit or take back what changed, `dvc checkout` for the bundle")
        print(f"warning: {what}; the image is marked as dirty", file=sys.stderr)
    if fault := source.fault_of_ages():
        if options.strict:
            raise ImageError(fault)
        print(f"warning: {fault}. The image does not say it", file=sys.stderr)
    reference = checked(options.tag or f"localhost/espalier:{name}-{source.revision}")
    extra = (*shlex.split(os.environ.get("IMAGE_BUILD_ARGS", "")), *options.builder_arg)
    builder, base = choose(options.tool), options.base or None
    return build(source, builder, reference, base, cache=options.cache, arguments=extra)


def checked(reference: str) -> str:
    """A reference with a registry (or `localhost`), a name and a tag.

    Raises:
        ImageError: it is malformed.
    """
    if not _REFERENCE.fullmatch(reference):
        raise ImageError(
            f"{reference} is no name for an image: REGISTRY/NAME:TAG is expected, without a digest"
        )
    return reference


def _described(record: Record) -> str:
    return "\n".join(
        (
            record.reference,
            f"  digest    {record.digest}",
            f"  revision  {record.revision}",
            f"  model     {record.model_name} {record.model_version}",
            f"  size      {record.bytes / 1e6:.0f} MB",
            f"  built by  {record.tool}, from {record.base}",
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"What was built last for a model is written to {RECORDS}/MODEL.json.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{build,push,inspect}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", default="", metavar="NAME", help="a model, or all (default: the first)")
    common.add_argument(
        "--tool",
        choices=[builder.name for builder in BUILDERS],
        default=os.environ.get("IMAGE_TOOL") or None,
        help="the program to use (default: the first of these that works; IMAGE_TOOL)",
    )
    building = commands.add_parser(
        "build", parents=[common], help="build the image from this clone and the model's bundle"
    )
    building.add_argument(
        "--tag", metavar="REGISTRY/NAME:TAG", help="its name (default: localhost/espalier:MODEL-COMMIT)"
    )
    building.add_argument(
        "--base",
        metavar="IMAGE",
        default=os.environ.get("IMAGE_BASE"),
        help="an image to build on in place of the Dockerfile's (IMAGE_BASE)",
    )
    building.add_argument(
        "--strict",
        action="store_true",
        help="refuse when the clone differs from its commit, or lacks its history",
    )
    building.add_argument("--no-cache", dest="cache", action="store_false", help="run every step again")
    building.add_argument(
        "--builder-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="an option of the builder, e.g. --builder-arg=--network=host; may be repeated (IMAGE_BUILD_ARGS)",
    )
    pushing = commands.add_parser(
        "push",
        parents=[common],
        help="push what was built last; prints REGISTRY/NAME@DIGEST, and sets outputs in a workflow",
    )
    pushing.add_argument("--replace", action="store_true", help="take the tag away from another image")
    inspecting = commands.add_parser(
        "inspect", parents=[common], help="print digest, size and labels as JSON"
    )
    inspecting.add_argument("reference", nargs="?", help="an image (default: what was built last)")
    return parser


if __name__ == "__main__":
    run(main)
