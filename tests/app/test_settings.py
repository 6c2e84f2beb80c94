"""Environment variables, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, body_limit, environment_help, read_settings


def test_defaults_suit_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ESPALIER_{name.upper()}", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    settings = read_settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.model_dir == Path("model")
    assert body_limit(settings, 4) == 1024 * 1024
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
        ("ESPALIER_PORT", "0"),
        ("ESPALIER_PORT", "-1"),
        ("ESPALIER_PORT", "8e3"),
        ("PORT", "http"),
        ("PORT", ""),
        ("ESPALIER_HOST", ""),
        ("ESPALIER_HOST", " "),
        ("ESPALIER_HOST", "a" * 64),
        ("ESPALIER_HOST", "0.0.0.0:8000"),
        ("ESPALIER_HOST", "http://iris"),
        ("ESPALIER_HOST", "[::1"),
        ("ESPALIER_HOST", "*"),
        ("ESPALIER_HOST", "two..dots"),
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
    monkeypatch.delenv("ESPALIER_PORT", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value).startswith(f"{name}={value}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["ESPALIER_HOST", "ESPALIER_PORT", "ESPALIER_WORKERS", "ESPALIER_LOG_FORMAT"]
)
def test_a_line_break_in_a_value_does_not_break_the_message(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1\n2")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value).startswith(f"{name}=1\\n2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
        ("[::1]", "::1"),
        (" localhost ", "localhost"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("iris_1.example.", "iris_1.example."),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_is_an_address_or_a_name(given: str, host: str) -> None:
    assert Settings(host=given).host == host


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


@pytest.mark.parametrize(
    ("features", "limit"), [(1, 2**20), (128, 2**20), (129, 129 * 8192), (200, 200 * 8192), (1502, 2**21)]
)
def test_the_largest_body_grows_with_the_features_unless_it_is_set(features: int, limit: int) -> None:
    assert body_limit(Settings(), features) == limit
    assert body_limit(Settings(max_body_bytes=3000), features) == 3000
