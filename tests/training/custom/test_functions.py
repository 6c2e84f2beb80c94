"""What is said of a function that a model names, and of what it returns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.training import own_code
from tests.training.project import ROOT
from training.base.errors import ConfigError
from training.custom import functions

WHERE = "train.algorithms.net.estimator"


def complaint(name: str, task: str = "classification") -> str:
    with pytest.raises(ConfigError) as error:
        functions.estimator(WHERE, name, task)  # type: ignore[arg-type]
    text = str(error.value)
    assert text.startswith(f"{WHERE}: ")
    assert "\n" not in text
    return text.removeprefix(f"{WHERE}: ")


def test_a_function_of_the_folder_and_a_class_of_a_package(folder: Path) -> None:
    assert isinstance(
        functions.estimator(WHERE, "custom.models:lda", "classification"), LinearDiscriminantAnalysis
    )
    name = "sklearn.discriminant_analysis:LinearDiscriminantAnalysis"
    assert isinstance(functions.estimator(WHERE, name, "classification"), LinearDiscriminantAnalysis)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("custom.model:lda", r"there is no module custom\.model in custom/; did you mean custom\.models\?$"),
        ("net:lda", r"there is no module net: write net\.py beside params\.yaml, or install a package"),
        ("sklearn.nets:lda", "there is no module sklearn.nets in the package sklearn$"),
        ("custom.models:ldaa", r"custom\.models has no function ldaa; did you mean lda\?$"),
        ("custom.models:DEEP", r"custom\.models:DEEP is an int, and no function$"),
        (
            "custom.models:ridge",
            r"returns a Ridge, which is a regressor, and the target is a classification$",
        ),
        ("custom.features:products", "returns a ColumnTransformer, which is no classifier"),
        (
            "json:JSONEncoder",
            "json:JSONEncoder returns a JSONEncoder, which is no estimator of scikit-learn$",
        ),
        ("json:loads", "json:loads is called without arguments: missing a required argument: 's'$"),
        ("training.base.config:read", "training/ is a folder of the project: put the code into another one"),
    ],
)
def test_what_is_wrong_with_a_name(folder: Path, name: str, message: str) -> None:
    own_code.write(folder, {"training/base/config.py": "def read(): pass"})
    assert re.search(message, complaint(name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere\n", r"the module nowhere is not there \(custom/net\.py:1\): install the package"),
        (
            "1 / 0\n",
            r"custom\.net cannot be imported: ZeroDivisionError: division by zero \(custom/net\.py:1\)$",
        ),
        ("def make(:\n", r"cannot be imported: SyntaxError: invalid syntax \(custom/net\.py:1\)$"),
        ("import sys\nsys.exit(3)\n", r"cannot be imported: SystemExit: 3 \(custom/net\.py:2\)$"),
        (
            "def inner():\n    raise KeyError('no key')\ndef make():\n    inner()\n",
            r"custom\.net:make raises KeyError: 'no key' \(custom/net\.py:2\)$",
        ),
        (
            "def make(size):\n    pass\n",
            r"make is called without arguments: missing a required argument: 'size'$",
        ),
        ("def make():\n    pass\n", r"make returns nothing, which is no estimator of scikit-learn$"),
        (
            "from sklearn.svm import SVC\ndef make():\n    return SVC\n",
            r"make returns the class SVC itself, which is no estimator of scikit-learn$",
        ),
        (
            "from sklearn.base import BaseEstimator\nclass make(BaseEstimator):\n    def fit(self, X, y): pass\n",
            r"returns a make, which is no classifier \(derive it from ClassifierMixin\), and the target is a class",
        ),
    ],
)
def test_what_is_wrong_with_a_function(folder: Path, text: str, message: str) -> None:
    own_code.write(folder, {"custom/net.py": text})
    assert re.search(message, complaint("custom.net:make"))


def test_a_transformer_has_to_transform(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no transformer") as error:
        functions.transformer("train.features", "custom.models:ridge")
    assert str(error.value) == (
        "train.features: custom.models:ridge returns a Ridge, which is no transformer of scikit-learn"
    )


def test_code_outside_the_folder_is_refused(folder: Path) -> None:
    """A further model finds the first one's code too, because PYTHONPATH has the top folder."""
    further = folder / "models/churn"
    further.mkdir(parents=True)
    code = (
        "from training.custom import functions\n"
        f"functions.estimator({WHERE!r}, 'custom.models:lda', 'classification')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=further,
        env={"PYTHONPATH": f"../../:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(
        r"custom\.models is .*custom/__init__\.py, outside this model's folder: put the code beside",
        done.stderr,
    )


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "net.py"
    elsewhere.write_text("def make(): pass\n")
    (folder / "net.py").symlink_to(elsewhere)
    assert re.search(
        r"net\.py leads to .*elsewhere.*/net\.py, outside this model's folder", complaint("net:make")
    )


@pytest.mark.parametrize("name", ["statistics", "yaml"])
def test_a_name_that_hides_an_installed_module_is_refused(folder: Path, name: str) -> None:
    own_code.write(folder, {f"{name}.py": "def make(): pass\n"})
    assert f"{name} is also a package that is installed" in complaint(f"{name}:make")
