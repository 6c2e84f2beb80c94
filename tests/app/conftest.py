from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings
from tests.bundles import write_harvest_bundle, write_mixed_bundle, write_number_bundle, write_value_bundle

with warnings.catch_warnings():
    # Starlette wants another HTTP library for its test client; this one is what everything else here uses.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

Serve = Callable[..., TestClient]


@pytest.fixture(scope="session")
def number_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with four numbers and three classes."""
    directory = tmp_path_factory.mktemp("number-model")
    write_number_bundle(directory)
    return directory


@pytest.fixture(scope="session")
def mixed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with two numbers and a category, of which two may be missing."""
    directory = tmp_path_factory.mktemp("mixed-model")
    write_mixed_bundle(directory)
    return directory


@pytest.fixture(scope="session")
def value_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression with four numbers."""
    directory = tmp_path_factory.mktemp("value-model")
    write_value_bundle(directory)
    return directory


@pytest.fixture(scope="session")
def harvest_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression with two numbers and a category, of which two may be missing."""
    directory = tmp_path_factory.mktemp("harvest-model")
    write_harvest_bundle(directory)
    return directory


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Builds a client of a new application; a bug in it is raised here instead of answered with 500."""

    def build(model: Path, **settings: object) -> TestClient:
        return TestClient(create_app(Settings(model_dir=model, **settings)))  # type: ignore[arg-type]

    return build


@pytest.fixture(scope="module")
def numbers(number_model: Path, serve: Serve) -> TestClient:
    return serve(number_model)


@pytest.fixture(scope="module")
def mixed(mixed_model: Path, serve: Serve) -> TestClient:
    return serve(mixed_model)
