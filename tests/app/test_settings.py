"""Environment variables, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, environment_help, read_settings


def test_defaults_suit_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ESPALIER_{name.upper()}", raising=False)
    settings = read_settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.model_dir == Path("model")
    assert settings.max_body_bytes == 1024 * 1024
    assert not settings.access_log


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_MODEL_DIR", "/srv/model")
    monkeypatch.setenv("ESPALIER_DRAIN_SECONDS", "0.5")
    monkeypatch.setenv("ESPALIER_ACCESS_LOG", "true")
    settings = read_settings()
    assert (settings.model_dir, settings.drain_seconds, settings.access_log) == (
        Path("/srv/model"),
        0.5,
        True,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ESPALIER_PORT", "http"),
        ("ESPALIER_PORT", "70000"),
        ("ESPALIER_PORT", ""),
        ("ESPALIER_WORKERS", "0"),
        ("ESPALIER_MAX_BODY_BYTES", "1MB"),
        ("ESPALIER_DRAIN_SECONDS", "-1"),
        ("ESPALIER_DRAIN_SECONDS", "nan"),
        ("ESPALIER_LOG_FORMAT", "xml"),
        ("ESPALIER_ACCESS_LOG", "sometimes"),
        ("ESPALIER_MODEL_CREATED", "yesterday"),
        ("ESPALIER_DATA_CREATED", "-1"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value).startswith(f"{name}={value}: ")
    assert "\n" not in str(caught.value)


def test_a_time_that_is_empty_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's build leaves it empty where the history does not tell."""
    monkeypatch.setenv("ESPALIER_MODEL_CREATED", "")
    monkeypatch.setenv("ESPALIER_DATA_CREATED", "1700000000")
    settings = read_settings()
    assert (settings.model_created, settings.data_created) == (None, 1700000000)


def test_help_names_every_variable_and_its_default() -> None:
    text = environment_help()
    for name in Settings.model_fields:
        assert f"ESPALIER_{name.upper()} " in text
    assert "(default: 8000)" in text
    assert "None" not in text
