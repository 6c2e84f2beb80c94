from __future__ import annotations

import difflib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from common import overlays
from deploy.errors import ReleaseError
from deploy.release import overlay
from deploy.release.overlay import Release
from tests.tools import require

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ("staging", "production")
RELEASE = Release("localhost:5000/espalier", "sha256:" + "ab" * 32, "0123456789ab", "cd" * 20)
ZEROS = "sha256:" + "0" * 64
FLOW = f"""\
images: [{{name: other, newName: x, digest: y}}, {{name: "espalier", newName: 'a.example/b', digest: {ZEROS}}}] # one line
labels: [{{pairs: {{team: ml}}}}, {{pairs: {{"app.kubernetes.io/version": none}}, includeTemplates: true}}]
commonAnnotations: {{espalier.dev/revision: "{"0" * 40}"}}
"""

BLOCK = f"""\
# Short, so that many of it can be tried.
images:
  - name: espalier  # ours
    newName: a.example/b
    digest: {ZEROS}

labels:
  - pairs:
      app.kubernetes.io/version: none
commonAnnotations:
  espalier.dev/revision: "{"0" * 40}"
"""

hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
numbers = st.one_of(
    st.text("0123456789", min_size=12, max_size=12),  # a number to YAML, perhaps an octal one
    st.from_regex(r"[0-9]{3}e[0-9]{8}", fullmatch=True),  # a very large one
    st.sampled_from(["null", "true", "no", "none", "1.0.0", "2026-11-21", "0x1F", "12e4"]),
    st.text("0123456789abcdef", min_size=12, max_size=12),
)
releases = st.builds(
    Release,
    name=st.sampled_from(
        ["localhost:5000/espalier", "1.dkr.ecr.eu-central-1.amazonaws.com/espalier", "[::1]:5000/a"]
    ),
    digest=hexadecimal.map(lambda text: f"sha256:{text}"),
    version=numbers,
    revision=st.one_of(hexadecimal.map(lambda text: text[:40]), st.just("1" * 40), st.just("1e" + "2" * 38)),
)


def text_of(environment: str) -> str:
    return (ROOT / overlays.path(environment)).read_bytes().decode()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_projects_overlays_can_be_read_and_written(environment: str) -> None:
    text = text_of(environment)
    overlay.parse(text, environment)
    after = overlay.edit(text, RELEASE, environment)
    assert overlay.parse(after, environment) == RELEASE
    changed = [line for line in difflib.ndiff(text.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert len(changed) <= 8, "four lines, and not one besides"


def test_the_place_before_the_first_release_is_empty() -> None:
    assert overlay.parse(FLOW, "x").empty
    assert not RELEASE.empty


@pytest.mark.slow
@given(releases)
def test_what_is_written_is_read_again_as_text(release: Release) -> None:
    for text in (BLOCK, FLOW):
        after = overlay.edit(text, release, "x")
        assert overlay.parse(after, "x") == release
        document = YAML(typ="safe", pure=True).load(after)
        assert document["commonAnnotations"][overlays.REVISION_ANNOTATION] == release.revision
        assert [
            each["pairs"][overlays.VERSION_LABEL]
            for each in document["labels"]
            if overlays.VERSION_LABEL in each["pairs"]
        ] == [release.version]
        assert overlay.edit(after, release, "x") == after


usual = releases.filter(lambda release: release.name[0].isalnum())  # others need quotes, which then stay


@pytest.mark.slow
@given(usual, usual)
def test_going_forth_and_back_gives_the_same_bytes(one: Release, two: Release) -> None:
    first = overlay.edit(BLOCK, one, "x")
    assert overlay.edit(overlay.edit(first, two, "x"), one, "x") == first


keys = st.text("abcdefgh-", min_size=1, max_size=8).map(lambda text: f"k{text}")
values = st.one_of(
    st.sampled_from(["plain", "'single  quoted'", '"double \\u00e9"', "[a,   b]", "{a:  1}", "|\n    a block\n\n      kept\n", "!!str x", "~", ""]),
)  # fmt: skip
blanks = st.sampled_from(["", "\n", "   \n", '# a comment: with {[ " marks\n', "\t# after a tab\n", "#é→\n"])


@pytest.mark.slow
@given(
    st.lists(st.tuples(keys, values, blanks), unique_by=lambda item: item[0], max_size=6),
    st.permutations(["images", "labels", "commonAnnotations"]),
    st.integers(0, 6),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    releases,
)
def test_nothing_but_the_four_values_changes(
    others: list[tuple[str, str, str]],
    order: list[str],
    spaces: int,
    newline: str,
    end: bool,
    release: Release,
) -> None:
    """Text around the values in any layout: what is not the values stays, byte by byte."""
    gap = " " * spaces
    blocks = {
        "images": f"images:\n{gap}- name: espalier   # ours\n{gap}  digest:   <digest>  # of the image\n{gap}  newName: <name>\n{gap}- name: other\n{gap}  digest: sha256:0\n",
        "labels": f"labels:\n{gap}- pairs:\n{gap}      app.kubernetes.io/version: <version> # served\n{gap}  includeTemplates: true\n",
        "commonAnnotations": "commonAnnotations:\n    a: b\n    espalier.dev/revision:    <revision>\n",
    }
    parts = [f"{key}: {value}\n{blank}" for key, value, blank in others] + [blocks[name] for name in order]
    template = "".join(parts)
    template = (template if end else template.rstrip("\n")).replace("\n", newline)
    before = _fill(template, name="a.example/b", digest=ZEROS, version="none", revision=f'"{"0" * 40}"')
    name = f'"{release.name}"' if release.name.startswith("[") else release.name
    version, revision = f'"{release.version}"', f'"{release.revision}"'
    after = _fill(template, name=name, digest=release.digest, version=version, revision=revision)
    try:
        YAML(typ="safe", pure=True).load(before)
    except YAMLError:
        # What is drawn need not be YAML, and what is not must be said to be not.
        with pytest.raises(ReleaseError, match="is not YAML"):
            overlay.edit(before, release, "x")
    else:
        assert overlay.edit(before, release, "x") == after


def _fill(template: str, **values: str) -> str:
    for field, value in values.items():
        template = template.replace(f"<{field}>", value)
    return template


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("images:", "pictures:"), "must have one newName of the image espalier under images, and has 0"),
        (('name: "espalier"', "name: another"), "must have one newName of the image espalier"),
        (("digest: sha256:", "newTag: sha256:"), "must have one digest of the image espalier"),
        (("{name: other, newName: x", "{name: espalier, newName: x"), "must have one newName .*, and has 2"),
        (("app.kubernetes.io/version", "version"), "must have one label app.kubernetes.io/version"),
        (("espalier.dev/revision", "revision"), "must have one annotation espalier.dev/revision"),
        (("none", "[none]"), "must have one label"),
        (("none", "not a label"), "is 'not a label', which is none"),
        (("sha256:", "sha512:"), "the digest of the image is 'sha512:0"),
        (('"0', '"x'), "the annotation espalier.dev/revision is 'x0"),
        (("labels:", "<<<<<<< HEAD\nlabels:"), "x line 3 is not YAML"),
        (("commonAnnotations: {", "commonAnnotations: {{"), "is not YAML"),
        (("labels:", "namePrefix: a\nnamePrefix: b\nlabels:"), "the key 'namePrefix' stands twice"),
        (("{name: other, newName: x", "{name: other, name: y, newName: x"), "the key 'name' stands twice"),
        (("labels:", "loop: &loop [*loop, {a: 1, a: 2}]\nlabels:"), "the key 'a' stands twice"),
    ],
)
def test_what_an_overlay_lacks_is_named(change: tuple[str, str], said: str) -> None:
    text = FLOW.replace(*change)
    assert text != FLOW
    with pytest.raises(ReleaseError, match=said) as raised:
        overlay.parse(text, "x")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "a: b", "- a", "just text", "a: *unknown", "\0", "a: b\n---\nc: d\n"])
def test_what_is_no_overlay_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError):
        overlay.parse(text, "x")


def test_a_day_that_no_calendar_has_is_refused() -> None:
    with pytest.raises(ReleaseError, match="x is not YAML: month must be"):
        overlay.edit(FLOW + "day: 2026-99-99\n", RELEASE, "x")


def test_a_value_that_stands_for_another_too_is_not_edited() -> None:
    """An anchor on the digest is used elsewhere: the other place would change with it."""
    text = FLOW.replace("digest: y", "digest: *d").replace("digest: sha256", "digest: &d sha256")
    text = text.replace("{name: other, newName: x, digest: *d}, ", "") + "other: *d\n"
    with pytest.raises(ReleaseError, match="cannot be edited"):
        overlay.edit(text, RELEASE, "x")


@pytest.mark.parametrize("version", ["123456789012", "12345678e123", "0123456789ab"])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_kustomize_takes_what_is_written(tmp_path: Path, environment: str, version: str) -> None:
    """Twelve digits are a number to YAML, and a label must be text: kustomize is asked."""
    kubectl = require("kubectl")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    release = Release(RELEASE.name, RELEASE.digest, version, "1" * 40)
    file = tmp_path / overlays.path(environment)
    file.write_bytes(overlay.edit(file.read_bytes().decode(), release, environment).encode())
    done = subprocess.run(
        [kubectl, "kustomize", str(file.parent), "--output", str(tmp_path / "out.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    documents: list[dict[str, Any]] = list(
        YAML(typ="safe", pure=True).load_all((tmp_path / "out.yaml").read_text())
    )
    assert {each["metadata"]["annotations"][overlays.REVISION_ANNOTATION] for each in documents} == {
        release.revision
    }
    assert {each["metadata"]["labels"][overlays.VERSION_LABEL] for each in documents} == {version}
    (rollout,) = (each for each in documents if each["kind"] == "Rollout")
    pods = rollout["spec"]["template"]
    assert pods["metadata"]["labels"][overlays.VERSION_LABEL] == version
    assert release.image in [container["image"] for container in pods["spec"]["containers"]]
    assert overlays.VERSION_LABEL not in json.dumps(rollout["spec"]["selector"])
