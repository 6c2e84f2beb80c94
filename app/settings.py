"""The service's settings: one environment variable each, `ESPALIER_` before the field's name. The port also has `PORT`."""

from __future__ import annotations

import json
import os
import re
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.address import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    PORT_VARIABLES,
    parse_host,
    parse_port,
    port_variable,
    printable,
)

PREFIX = "ESPALIER_"
_HELP_WIDTH = 100


class SettingsError(Exception):
    """A variable has an invalid value; the message is one line that names it."""


_Time = Annotated[
    Annotated[int, Field(ge=0, le=253402300799)] | None,
    BeforeValidator(lambda given: None if given == "" else given),
]
"""An empty value means "not set": an image may have been built where the time was unknown."""


LogField = Literal["id", "time", "model_version", "features", "label", "probabilities", "value", "interval"]


def listed(given: object) -> Any:
    """Names from a list with commas; a JSON list may have names with commas."""
    if not isinstance(given, str):
        return given
    if given.lstrip().startswith("["):
        try:
            return json.loads(given)
        except ValueError:
            raise ValueError("it begins like a JSON list, but is not valid JSON") from None
    return [name.strip() for name in given.split(",") if name.strip()]


def _chosen(given: object) -> object:
    return given if given in ("all", "none") else listed(given)


KeyType = Literal["int", "string"]


def _keys(given: object) -> Any:
    """`driver_id:int,region:string` by name."""
    if not isinstance(given, str):
        return given
    pairs = [each.rpartition(":")[::2] for each in listed(given)]
    if not all(name and kind in get_args(KeyType) for name, kind in pairs):
        raise ValueError("it must be names with a type, int or string, such as driver_id:int,region:string")
    return {name.strip(): kind for name, kind in pairs}


def _ages(given: object) -> Any:
    """`trips=172800,profile=3600` by view."""
    if not isinstance(given, str):
        return given
    pairs = [each.rpartition("=")[::2] for each in listed(given)]
    if not all(view and re.fullmatch(r"\d{1,10}", seconds.strip()) for view, seconds in pairs):
        raise ValueError("it must be views with whole seconds, such as trips=172800,profile=3600")
    return {view.strip(): float(seconds) for view, seconds in pairs}


MIB = 1024 * 1024


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    model_dir: Path = Field(Path("model"), description="the bundle to serve: model.onnx and model.json")
    host: Annotated[str, BeforeValidator(parse_host)] = Field(
        DEFAULT_HOST,
        description="address or name to listen on; a container wants 0.0.0.0, or :: for IPv6 as well",
    )
    port: Annotated[int, BeforeValidator(parse_port)] = Field(
        DEFAULT_PORT,
        validation_alias=AliasChoices(*PORT_VARIABLES),
        description="port to listen on; PORT is read if this is not set",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="prefix of all paths, such as /models/iris, if a proxy passes it on; paths without it work too",
    )
    workers: int = Field(1, ge=1, le=64, description="processes that share the port")
    max_body_bytes: int | None = Field(
        None,
        ge=1,
        description="larger request bodies get a 413; while it is not set, 8 KiB for each feature of the model, "
        "at least 1 MiB and at most 2 MiB",
    )
    max_answer_bytes: int = Field(
        8 * 1024 * 1024,
        ge=1024,
        description="rows whose answer or values in memory could be larger get a 413 that says how many fit",
    )
    max_buffered_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1,
        description="bodies that are not answered and responses that are not read may take so much memory "
        "in each process; further bodies get a 503",
    )
    max_connections: int = Field(
        4096,
        ge=1,
        le=1_000_000,
        description="connections of each process; further ones are closed, and idle ones after 5 seconds "
        "when half of them are open",
    )
    head_seconds: int = Field(
        60, ge=1, le=3600, description="time in which the head of a request must be complete"
    )
    body_seconds: int = Field(60, ge=1, le=3600, description="time that a request's body may stall")
    response_seconds: int = Field(
        60, ge=1, le=3600, description="time that a client may stall while it reads a response"
    )
    unknown_fields: Literal["reject", "ignore"] = Field(
        "reject", description="what to do with fields that are not features: reject or ignore"
    )
    batch_process: bool = Field(
        True,
        description="answer large requests in a process of low priority, which starts with the first one and takes "
        "some 60 MB; false means in a thread",
    )
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
        None, description="creation time of the model, in seconds since 1970, for its age in the metrics"
    )
    data_created: _Time = Field(None, description="creation time of its data, in seconds since 1970")
    prediction_log: str = Field(
        "", description="directory or s3://BUCKET/PREFIX to log predictions to; no log if empty"
    )
    prediction_log_sample: float = Field(
        1.0, ge=0, le=1, allow_inf_nan=False, description="share of the requests that are logged"
    )
    prediction_log_fields: Annotated[
        tuple[LogField, ...], NoDecode, BeforeValidator(listed), Field(min_length=1)
    ] = Field(
        get_args(LogField),
        description="what is written of each row; label and probabilities of a classification, value and interval of "
        "a regression",
    )
    prediction_log_features: Annotated[
        Literal["all", "none"] | tuple[str, ...], NoDecode, BeforeValidator(_chosen)
    ] = Field("all", description="which features are written: all, none, or names with commas between them")
    prediction_log_rows_per_file: int = Field(
        10_000, ge=1, le=1_000_000, description="a file is stored when it has so many rows"
    )
    prediction_log_seconds_per_file: float = Field(
        60, ge=1, le=3600, description="or when its first row is so old"
    )
    prediction_log_queue_rows: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="rows that may wait to be written; further ones are dropped and counted",
    )
    feature_store: str = Field(
        "",
        description="address of Feast's feature server, such as http://feast:6566, for requests that name an entity; no "
        "such requests if empty",
    )
    feature_store_service: str = Field(
        "", description="its feature service; if empty, the one of which the model was trained"
    )
    feature_store_keys: Annotated[dict[str, KeyType], NoDecode, BeforeValidator(_keys)] = Field(
        {}, description="keys of an entity with their types, such as driver_id:int,region:string"
    )
    feature_store_timeout: float = Field(
        0.25,
        gt=0,
        le=60,
        allow_inf_nan=False,
        description="seconds in which it must answer; a request that waits longer gets a 503",
    )
    feature_store_connections: int = Field(
        8, ge=1, le=1024, description="connections of each process to it; further requests wait for one"
    )
    feature_store_max_age: Annotated[dict[str, float], NoDecode, BeforeValidator(_ages)] = Field(
        {},
        description="views with seconds after which their values count as missing, such as trips=172800, as Feast's ttl "
        "does in training",
    )


def read_settings() -> Settings:
    """Settings from the environment; raises SettingsError for an invalid value."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # After the field comes the place in a list.
        field = str(first["loc"][0])
        name = port_variable(os.environ) if field in PORT_VARIABLES else PREFIX + field.upper()
        reason = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise SettingsError(f"{name}={printable(first['input'])}: {reason}") from None


def body_limit(settings: Settings, features: int) -> int:
    """The largest body in bytes: as set, or large enough for a few hundred rows of so many features as JSON."""
    return settings.max_body_bytes or min(max(MIB, 8 * 1024 * features), 2 * MIB)


def environment_help() -> str:
    """A table of the variables, their meanings and defaults."""
    rows = [
        # The default is not broken at its spaces.
        (
            PREFIX + name.upper(),
            f"{field.description} " + f"(default: {_shown(field.default)})".replace(" ", "\0"),
        )
        for name, field in Settings.model_fields.items()
    ]
    indent = max(len(name) for name, _ in rows) + 4
    lines = [
        textwrap.fill(
            about,
            _HELP_WIDTH,
            initial_indent=f"  {name}".ljust(indent),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, about in rows
    ]
    return "\n".join(lines).replace("\0", " ")


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    if value in ("", {}):
        return "empty"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
