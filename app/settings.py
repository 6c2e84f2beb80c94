"""What can be set from outside: one environment variable each, `ESPALIER_` before the field's name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "ESPALIER_"


class SettingsError(Exception):
    """A variable has a value that cannot be used; the message is one line that names it."""


_Time = Annotated[
    Annotated[int, Field(ge=0, le=253402300799)] | None,
    BeforeValidator(lambda given: None if given == "" else given),
]
"""Empty is as good as not set: an image may have been built where this could not be known."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    model_dir: Path = Field(Path("model"), description="the bundle to serve: model.onnx and model.json")
    host: str = Field("127.0.0.1", description="address to listen on; a container wants 0.0.0.0")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    workers: int = Field(1, ge=1, le=64, description="processes that share the port")
    max_body_bytes: int = Field(1024 * 1024, ge=1, description="larger request bodies get a 413")
    drain_seconds: float = Field(
        5, ge=0, le=3600, description="time between SIGTERM, when readiness fails, and the end of accepting"
    )
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        le=3600,
        description="time that idle connections are kept; longer than a load balancer keeps its own",
    )
    log_format: Literal["json", "text"] = Field("json", description="json for machines, text for people")
    access_log: bool = Field(False, description="log one line a request")
    model_created: _Time = Field(
        None, description="when the model came to be, in seconds since 1970, for its age in the metrics"
    )
    data_created: _Time = Field(None, description="when its data came to be, likewise")


def read_settings() -> Settings:
    """Settings from the environment.

    Raises:
        SettingsError: a value is not understood.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = PREFIX + "_".join(map(str, first["loc"])).upper()
        reason = first["msg"].removeprefix("Input ")
        raise SettingsError(f"{name}={first['input']!s}: {reason}") from None


def environment_help() -> str:
    """A table of the variables, their meaning and defaults."""
    rows = [
        (PREFIX + name.upper(), f"{field.description} (default: {_shown(field.default)})")
        for name, field in Settings.model_fields.items()
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {about}" for name, about in rows)


def _shown(value: object) -> str:
    if value is None or value == "":
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)
