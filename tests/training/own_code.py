"""Code of a model's own beside its params.yaml, which this process forgets at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILES = {
    "custom/__init__.py": "",
    "custom/models.py": """
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import Ridge

from custom.sizes import DEEP


def lda():
    return LinearDiscriminantAnalysis()


def bagging():
    from sklearn.tree import DecisionTreeClassifier

    return BaggingClassifier(DecisionTreeClassifier(max_depth=DEEP), n_estimators=5)


def ridge():
    return Ridge()
""",
    "custom/sizes.py": "DEEP = 3\n",
    "custom/features.py": """
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import PolynomialFeatures


def products():
    return make_column_transformer((PolynomialFeatures(2, include_bias=False), ["petal_length", "petal_width"]))
""",
}


def write(root: Path, files: dict[str, str] | None = None) -> None:
    for name, text in (FILES if files is None else files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@contextmanager
def forgotten(root: Path) -> Iterator[None]:
    """Import from a folder, and forget at the end what was."""
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name, module in [*sys.modules.items()]:
            places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
            if any(each and Path(each).is_relative_to(root) for each in places):
                del sys.modules[name]
