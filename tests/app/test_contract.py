"""Bundles that are not what they say they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import MANIFEST_FILE, MODEL_FILE, BundleError, Manifest, as_label, read_bundle
from tests.bundles import write_mixed_bundle, write_number_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_number_bundle(tmp_path)
    return tmp_path


def edit(directory: Path, **changes: Any) -> None:
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(directory: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_bundle_is_read(tmp_path: Path) -> None:
    written = write_mixed_bundle(tmp_path)
    assert read_bundle(tmp_path).manifest == written
    assert written.version == written.digest.removeprefix("sha256:")[:12]


def test_a_model_that_was_cut_short_is_refused(bundle: Path) -> None:
    model = bundle / MODEL_FILE
    model.write_bytes(model.read_bytes()[:-1])
    assert "not from one bundle" in refusal(bundle)


def test_a_manifest_that_was_cut_short_is_refused(bundle: Path) -> None:
    manifest = bundle / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes()[:-20])
    assert "is not JSON" in refusal(bundle)


def test_a_manifest_that_was_edited_is_refused(bundle: Path) -> None:
    edit(bundle, name="tulips")
    assert "it was edited" in refusal(bundle)


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_an_unknown_schema_version_is_refused_with_the_way_out(bundle: Path, version: object) -> None:
    edit(bundle, schema_version=version)
    message = refusal(bundle)
    assert repr(version) in message
    assert "make repro" in message


@pytest.mark.parametrize("missing", [MANIFEST_FILE, MODEL_FILE])
def test_a_missing_file_is_named(bundle: Path, missing: str) -> None:
    (bundle / missing).unlink()
    assert missing in refusal(bundle)


@pytest.mark.parametrize("content", ["[]", "null", '"model"', "{}"])
def test_json_that_is_no_manifest_is_refused(bundle: Path, content: str) -> None:
    (bundle / MANIFEST_FILE).write_text(content)
    refusal(bundle)


def test_an_unknown_field_is_named(bundle: Path) -> None:
    edit(bundle, color="red")
    assert "color" in refusal(bundle)


@pytest.mark.parametrize(
    ("feature", "changes", "message"),
    [
        (0, {"edges": [1.0]}, "do not fit"),
        (0, {"edges": [3.0, 2.0, 1.0]}, "not ascending"),
        (0, {"bins": [{"label": "low", "share": 0.25}] * 4}, "same label"),
    ],
)
def test_bins_fit_their_edges(bundle: Path, feature: int, changes: dict[str, Any], message: str) -> None:
    features = json.loads((bundle / MANIFEST_FILE).read_text())["features"]
    features[feature].update(changes)
    edit(bundle, features=features)
    assert message in refusal(bundle)


def test_bins_follow_the_categories(tmp_path: Path) -> None:
    write_mixed_bundle(tmp_path)
    features = json.loads((tmp_path / MANIFEST_FILE).read_text())["features"]
    features[1]["bins"].reverse()
    edit(tmp_path, features=features)
    assert "do not follow" in refusal(tmp_path)


@pytest.mark.slow
@given(
    st.lists(st.text() | st.sampled_from(["missing", "Missing", " missing"]), max_size=8), st.integers(0, 3)
)
def test_no_two_texts_and_no_reserved_word_share_a_label(texts: list[str], quotes: int) -> None:
    distinct = {*texts, *(f"{each}'" * quotes for each in texts), "'" * quotes + "missing" + "'" * quotes}
    labels = [as_label(each, "missing") for each in distinct]
    assert len({*labels, "missing"}) == len(distinct) + 1
    assert all(each == as_label(each, "missing") for each in distinct if "missing" not in each)


@pytest.mark.parametrize("names", [["", "b", "c", "d"], ["a", "b", "a", "d"]])
@pytest.mark.parametrize("field", ["classes", "features", "categories"])
def test_names_that_would_be_no_label_or_the_same_are_refused(
    tmp_path: Path, field: str, names: list[str]
) -> None:
    write_mixed_bundle(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    if field == "classes":
        edit(tmp_path, classes=names, class_shares=[1, 0, 0, 0])
    else:
        features = manifest["features"]
        if field == "features":
            for feature, name in zip(features, names, strict=True):
                feature["name"] = name
        else:
            features[1]["categories"] = names
        edit(tmp_path, features=features)
    assert "must be distinct and not empty" in refusal(tmp_path)


def test_each_class_has_a_share(bundle: Path) -> None:
    edit(bundle, class_shares=[1.0])
    assert "one share per class" in refusal(bundle)


def test_the_digest_covers_everything_but_itself(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert manifest.model_copy(update={"target": "other"}).computed_digest() != manifest.digest
    assert Manifest.model_validate_json(manifest.model_dump_json()).computed_digest() == manifest.digest
