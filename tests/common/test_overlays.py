"""The release file: what is written is read again, by us and by YAML, and nothing else is taken for one."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common import overlays
from common.overlays import OverlayError, Release

RELEASE = Release(
    "111122223333.dkr.ecr.eu-central-1.amazonaws.com/espalier", f"sha256:{'5' * 64}", "01dddd8b7714", "f" * 40
)

hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
# What YAML would take for numbers, dates or nothing, if it were not quoted.
versions = st.one_of(
    st.text("0123456789", min_size=12, max_size=12),
    st.from_regex(r"[0-9]{3}e[0-9]{8}", fullmatch=True),
    st.sampled_from(["null", "true", "no", "none", "1.0.0", "2026-11-21", "0x1F", "12e4", "VERSION", "NAME"]),
)
releases = st.builds(
    Release,
    name=st.sampled_from(["localhost:5000/espalier", RELEASE.name, "[::1]:5000/a", "a.b/REVISION"]),
    digest=hexadecimal.map(lambda text: f"sha256:{text}"),
    version=versions,
    revision=st.one_of(hexadecimal.map(lambda text: text[:40]), st.just("1" * 40), st.just("1e" + "2" * 38)),
)


@given(releases)
def test_what_is_written_is_read_again_as_text(release: Release) -> None:
    text = str(release)
    assert overlays.parse(text, "x") == release
    assert overlays.parse(text.replace("\n", "\r\n"), "x") == release
    document = yaml.safe_load(text)
    assert document["images"] == [{"name": "espalier", "newName": release.name, "digest": release.digest}]
    assert document["labels"][0]["pairs"] == {overlays.VERSION_LABEL: release.version}
    assert document["commonAnnotations"] == {overlays.REVISION_ANNOTATION: release.revision}


@given(releases, releases)
def test_a_release_changes_the_lines_of_its_values_alone(one: Release, two: Release) -> None:
    pairs = zip(str(one).splitlines(), str(two).splitlines(), strict=True)
    assert sum(a != b for a, b in pairs) <= 4


@pytest.mark.parametrize(
    "change",
    [
        ("", "# mine\n"),
        (f"sha256:{'5' * 64}", f"sha256:{'5' * 63}"),
        ('"01dddd8b7714"', "01dddd8b7714"),
        ("f" * 40, "main"),
        ("images:", "<<<<<<< HEAD\nimages:"),
        ("labels:", "images: []\nlabels:"),
        ("labels:", "&a labels:"),
    ],
)
def test_any_other_form_is_refused(change: tuple[str, str]) -> None:
    """Whatever YAML would make of it: what we read must be what kustomize reads."""
    text = str(RELEASE).replace(*change, 1)
    with pytest.raises(OverlayError, match=r"deploy/x is not as `python -m deploy\.release` writes it"):
        overlays.parse(text, "deploy/x")
    assert str(RELEASE) != text
