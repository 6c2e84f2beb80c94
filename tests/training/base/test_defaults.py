"""What a model's parameters are when the repository's defaults complete them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.project import ROOT
from training.base import config
from training.base.defaults import complete
from training.base.errors import ConfigError
from training.train.algorithms import FACTORIES

DEFAULTS: dict[str, Any] = {
    "split": {"test_share": 0.25, "seed": 7},
    "train": {
        "algorithms": {
            "svm": {"gamma": "scale", "search": {"method": "grid", "space": {"C": [1, 2], "tol": [0.1]}}},
            "tree": {"max_depth": 4},
        }
    },
    "select": {"tie": 0.1, "gate": {"maximum_bytes": 5, "minimum": {"accuracy": 0.9}}},
}


def algorithms(**blocks: Any) -> Any:
    own = {"train": {"algorithms": blocks}}
    return complete(own, DEFAULTS)["train"]["algorithms"]


def test_what_a_model_leaves_out_is_the_default() -> None:
    found = complete({"split": {"seed": 1}, "name": "churn"}, DEFAULTS)
    assert found["split"] == {"test_share": 0.25, "seed": 1}
    assert found["name"] == "churn"
    assert found["select"] == DEFAULTS["select"]


def test_a_list_and_a_number_are_replaced_and_a_null_removes() -> None:
    own = {"select": {"gate": {"maximum_bytes": None, "minimum": {"f1_macro": 0.5}}, "tie": [1]}}
    assert complete(own, DEFAULTS)["select"] == {
        "tie": [1],
        "gate": {"minimum": {"accuracy": 0.9, "f1_macro": 0.5}},
    }
    assert "split" not in complete({"split": None}, DEFAULTS)


def test_a_model_trains_the_algorithms_that_it_names() -> None:
    assert algorithms(tree=None) == {"tree": {"max_depth": 4}}
    assert algorithms(tree={"criterion": "entropy"}, other={"a": 1}) == {
        "tree": {"max_depth": 4, "criterion": "entropy"},
        "other": {"a": 1},
    }
    assert "train" not in complete({"name": "churn"}, DEFAULTS)


def test_an_estimator_of_the_model_has_no_defaults() -> None:
    own = {"estimator": "custom.net:make", "C": 3}
    assert algorithms(svm=own, net={"estimator": "custom.net:make"}) == {
        "svm": own,
        "net": {"estimator": "custom.net:make"},
    }


def test_features_of_the_model_are_those_of_each_block_without_its_own() -> None:
    blocks = {
        "tree": None,
        "svm": {"features": None},
        "other": {"features": "b:c"},
        "net": {"estimator": "a:b"},
    }
    found = complete({"train": {"features": "a:f", "algorithms": blocks}}, DEFAULTS)["train"]
    assert {name: block["features"] for name, block in found["algorithms"].items()} == {
        "tree": "a:f",
        "svm": None,
        "other": "b:c",
        "net": "a:f",
    }
    assert found["algorithms"]["tree"]["max_depth"] == 4
    without = complete({"train": {"features": None, "algorithms": {"tree": None}}}, DEFAULTS)["train"]
    assert without["algorithms"] == {"tree": {"max_depth": 4}}


def test_what_a_model_fixes_is_not_searched() -> None:
    assert algorithms(svm={"C": 3})["svm"] == {
        "gamma": "scale",
        "C": 3,
        "search": {"method": "grid", "space": {"tol": [0.1]}},
    }
    assert algorithms(svm={"C": 3, "tol": 1})["svm"] == {"gamma": "scale", "C": 3, "tol": 1}
    assert algorithms(svm={"search": None})["svm"] == {"gamma": "scale"}


def test_a_search_of_its_own_is_taken_whole() -> None:
    search = {"method": "random", "space": {"gamma": [1, 2]}}
    assert algorithms(svm={"search": search})["svm"] == {"search": search}, "gamma is not fixed any more"
    assert algorithms(svm={"search": "grid"})["svm"] == {"gamma": "scale", "search": "grid"}


@pytest.mark.parametrize("section", ["text", 5, [1], {"algorithms": "svm"}, {"algorithms": None}, None])
def test_what_is_no_block_is_left_to_the_check_of_its_section(section: Any) -> None:
    assert complete({"train": section}, DEFAULTS)["train"] == section


_KEYS = st.sampled_from(["split", "select", "gate", "seed", "tie", "minimum", "name"])
_VALUES = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(_KEYS, inner), max_leaves=8
)


@given(st.dictionaries(_KEYS, _VALUES))
def test_complete_parameters_stay_as_they_are(own: dict[str, Any]) -> None:
    """Completing twice changes nothing but what was null, and no input is changed."""
    before = repr((own, DEFAULTS))
    found = complete(own, DEFAULTS)
    assert repr((own, DEFAULTS)) == before
    for key, value in own.items():
        if value is not None and not isinstance(value, dict):
            assert found[key] == value


def test_the_shipped_defaults_complete_the_shortest_file(tmp_path: Path) -> None:
    """The blocks of all algorithms are among them, so a model may name any without parameters."""
    blocks = "".join(f"    {name}:\n" for name in {**FACTORIES["classification"], **FACTORIES["regression"]})
    file = tmp_path / "params.yaml"
    file.write_text(f"train:\n  algorithms:\n{blocks}")
    found = config.read(file)
    root = config.read(ROOT / "params.yaml")
    assert found["train"]["algorithms"].items() >= root["train"]["algorithms"].items()
    assert found["train"]["algorithms"].keys() == config.defaults()["train"]["algorithms"].keys()
    assert found["split"] == root["split"]
    assert found["evaluate"] | {"score": "f1_macro"} == root["evaluate"]


def test_a_key_that_is_wrong_is_named_as_before(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("split: {seeds: 3}\n")
    from training.prepare.stage import PrepareSettings

    with pytest.raises(ConfigError, match=r"split\.seeds: unknown key"):
        config.load(PrepareSettings, file)
