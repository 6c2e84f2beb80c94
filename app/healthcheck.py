"""`python -m app.healthcheck`: asks the service of this container whether it is ready; exits 0 if so, else 1.

It runs every few seconds beside the service, so it imports next to nothing: settings are read without pydantic.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping

TIMEOUT_SECONDS = 2.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not listened on


def main(environment: Mapping[str, str] = os.environ) -> int:
    host, port = address(environment)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        print(answer.read(200).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"error: nothing answers on {host}:{port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.HTTPStatus.OK else 1


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the service of this environment can be asked, by the variables and defaults of `app.settings`."""
    variables = {name.upper(): value for name, value in environment.items()}
    host = variables.get("ESPALIER_HOST", "127.0.0.1")
    return _ANY.get(host, host), int(variables.get("ESPALIER_PORT", "8000"))


if __name__ == "__main__":
    sys.exit(main())
