"""What functions of a model consist of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training import own_code
from training.base.errors import ConfigError
from training.custom import sources


def files(*names: str) -> list[str]:
    return [each.as_posix() for each in sources.of(names).files]


def test_a_function_consists_of_what_its_module_imports(folder: Path) -> None:
    assert files("custom.models:lda") == ["custom/__init__.py", "custom/models.py", "custom/sizes.py"]
    assert files("custom.features:products") == ["custom/__init__.py", "custom/features.py"]
    assert sources.of(["custom.models:lda"]).places == ("custom",)
    assert sources.of(["custom.models:lda"]).packages == ("scikit-learn",)


@pytest.mark.parametrize(
    "line",
    [
        "from . import other",
        "from .other import thing",
        "from custom import other",
        "import custom.other as it",
        "def make():\n    from .. import custom\n    from ..custom import other",
    ],
)
def test_all_forms_of_imports_are_followed(folder: Path, line: str) -> None:
    own_code.write(
        folder, {"custom/net.py": line, "custom/other.py": "import deep.down.far", "deep/down/far.py": ""}
    )
    assert files("custom.net:make") == [
        "custom/__init__.py",
        "custom/net.py",
        "custom/other.py",
        "deep/down/far.py",
    ]


def test_files_beside_the_modules_count_and_byte_code_does_not(folder: Path) -> None:
    more = (
        "custom/weights/first.bin",
        "custom/words.json",
        "custom/__pycache__/x.pyc",
        "custom/.hidden",
        "other.csv",
    )
    own_code.write(folder, dict.fromkeys(more, "1"))
    assert files("custom.features:products") == [
        "custom/__init__.py",
        "custom/features.py",
        "custom/weights/first.bin",
        "custom/words.json",
    ]


def test_a_single_file_and_names_that_are_not_ascii(folder: Path) -> None:
    own_code.write(folder, {"größe.py": "import yaml, numpy, xgboost, json, nowhere", "deep/one.py": ""})
    found = sources.of(["größe:mache", "deep.one:make"])
    assert found.places == ("deep", "größe.py")
    assert found.packages == ("numpy", "pyyaml", "xgboost", "xgboost-cpu")


def test_a_file_that_cannot_be_parsed_is_still_a_file(folder: Path) -> None:
    own_code.write(folder, {"custom/net.py": "def make(:"})
    assert files("custom.net:make") == ["custom/__init__.py", "custom/net.py"]


def document(**blocks: Any) -> dict[str, Any]:
    return {"name": "iris", "train": {"algorithms": blocks}}


def test_a_block_records_what_its_functions_consist_of(folder: Path) -> None:
    plain = {"svm": {"C": 1}, "ridge": None}
    assert sources.recorded(document(**plain)) == document(**plain)
    own = {"lda": {"estimator": "custom.models:lda"}, "made": {"features": "custom.features:products"}}

    def recorded() -> dict[str, Any]:
        found: dict[str, Any] = sources.recorded(document(**plain, **own))["train"]["algorithms"]
        return found

    before = recorded()
    assert before["svm"] == plain["svm"]
    assert set(before["lda"]["code"]) == {*files("custom.models:lda"), "scikit-learn"}
    own_code.write(folder, {"custom/sizes.py": "DEEP = 4\n"})
    after = recorded()
    assert {name for name in before if before[name] != after[name]} == {"lda"}


def test_a_package_whose_version_is_not_known(folder: Path) -> None:
    own_code.write(folder, {"custom/net.py": "import pytest"})
    with pytest.raises(ConfigError, match=r"^training/packages\.yaml lacks pytest: run `make packages`$"):
        sources.recorded(document(net={"estimator": "custom.net:make"}))


@pytest.mark.parametrize("blocks", [None, [], {"svm": 3}, {"svm": {"estimator": 3}}])
def test_other_forms_are_left_to_the_check_of_the_settings(blocks: Any) -> None:
    assert sources.recorded({"train": {"algorithms": blocks}}) == {"train": {"algorithms": blocks}}
    assert sources.recorded({"train": blocks}) == {"train": blocks}
