"""`python -m app.healthcheck`: exits with 0 if the service of this container is ready, otherwise with 1.

It runs every few seconds beside the service, so it imports very little and reads the settings without pydantic.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from app.address import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    local_address,
    parse_host,
    parse_port,
    port_variable,
    printable,
    url_of,
)

TIMEOUT_SECONDS = 2.0

T = TypeVar("T")


def main(environment: Mapping[str, str] = os.environ) -> int:
    try:
        host, port = address(environment)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        # The Host header may not have a scope such as %eth0.
        connection.request("GET", "/health/ready", headers={"Host": "localhost"})
        answer = connection.getresponse()
        print(answer.read(200).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"error: nothing answers on {url_of(host, port)}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.HTTPStatus.OK else 1


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of the service, from the variables and defaults of `app.settings`.

    Raises:
        ValueError: a variable has an invalid value; the message names it.
    """
    variables = {name.upper(): value for name, value in environment.items()}
    host = _read(variables, "ESPALIER_HOST", parse_host, DEFAULT_HOST)
    return local_address(host), _read(variables, port_variable(variables), parse_port, DEFAULT_PORT)


def _read(variables: Mapping[str, str], name: str, parse: Callable[[object], T], default: T) -> T:
    given = variables.get(name)
    if given is None:
        return default
    try:
        return parse(given)
    except ValueError as error:
        raise ValueError(f"{name}={printable(given)}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
