"""Parses the variables of host and port for the service and its health check, with the standard library only."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
PORT_VARIABLES = ("ESPALIER_PORT", "PORT")
"""The first that is set has the port; platforms such as Railway set the second."""
_PUNCTUATION = str.maketrans("", "", "-._")


def parse_host(given: object) -> str:
    """An address or a host name; an IPv6 address may have brackets.

    Raises:
        ValueError: it is neither.
    """
    host = str(given).strip()
    if not host:
        raise ValueError(
            f"should be an address: {DEFAULT_HOST} for this machine only, 0.0.0.0 for all IPv4 addresses, "
            ":: for IPv6 and IPv4; without the variable it is " + DEFAULT_HOST
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    with suppress(ValueError):
        # `ipaddress` accepts any text as a scope.
        address = ipaddress.ip_address(host if host.isprintable() else "")
        return str(getattr(address, "ipv4_mapped", None) or address)
    try:
        # The resolver's encoding; it refuses empty and long labels.
        encoded = host.encode("idna").decode()
    except UnicodeError:
        encoded = ""
    if not encoded.isascii() or not encoded.translate(_PUNCTUATION).isalnum():
        raise ValueError("should be an address or a host name, without a port")
    return encoded


def parse_port(given: object) -> int:
    """A port number.

    Raises:
        ValueError: it is not one.
    """
    text = str(given).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError("should be a whole number from 1 to 65535")
    return int(text)


def port_variable(environment: Mapping[str, str]) -> str:
    """The variable that has the port; it may be written in small letters."""
    names = {name.upper() for name in environment}
    return next((name for name in PORT_VARIABLES if name in names), PORT_VARIABLES[0])


def local_address(host: str) -> str:
    """The address at which the same machine reaches a service that listens on a host."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
    return host


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def printable(value: object) -> str:
    """A variable's value on one line, whatever it contains."""
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]
