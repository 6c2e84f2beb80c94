"""Checks networks that people name."""

from __future__ import annotations

from ipaddress import IPv4Network

from deploy.adopt.errors import AdoptError


def check_network(option: str, value: str, widest: int) -> None:
    """Refuse what is no network, and a mask below `widest` bits, with which it is the internet or close to it.

    Raises:
        AdoptError: names the option, the value and the expected form.
    """
    if "/" not in value:
        raise AdoptError(f"{option} {value!r} is not a network with a mask, such as 10.0.0.0/{widest}")
    try:
        # Without it, masks such as /255.255.0.0 pass.
        network = IPv4Network(value) if value.rpartition("/")[2].isdecimal() else None
    except ValueError as error:
        raise AdoptError(f"{option}: {error}") from None
    if network is None:
        raise AdoptError(f"{option} {value!r} is not a network with a mask, such as 10.0.0.0/{widest}")
    if network.prefixlen < widest:
        raise AdoptError(f"{option} {value} is too wide: the mask must have at least /{widest}")
