"""Checks networks that people name."""

from __future__ import annotations

from ipaddress import IPv4Network

from deploy.adopt.errors import AdoptError

_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def check_network(option: str, value: str, widest: int, *, public: bool = False) -> None:
    """Refuse what is no network, and a mask below `widest` bits, with which it is the internet or close to it.

    Args:
        option: what the user wrote, for messages.
        value: the network.
        widest: the smallest mask.
        public: whether a private network is refused, because requests from it never come over the internet.

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
    if public and any(network.overlaps(each) for each in _PRIVATE):
        raise AdoptError(
            f"{option} {value} is private, and requests come from public addresses: name those of your way out, or "
            "private_api_cidrs in terraform.tfvars"
        )
