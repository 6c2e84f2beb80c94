"""The hosts that a command and its children look up or connect to, as the kernel is asked: C, C++ and Go included."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from tests.tools import require

CALLS = "connect,sendto,sendmsg,sendmmsg,write"
"""Go's resolver writes to a connected socket; glibc's sends."""
PAYLOAD = re.compile(r'"((?:\\x[0-9a-f]{2})+)"')
"""strace prints whatever is not text in hexadecimal."""
CONNECTED = re.compile(
    r'\bconnect\(.*?(?:sin_port|sin6_port)=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"'
)
RESOLVED = re.compile(r"ResolveHostname.*?name\\?\":\\?\"([^\"\\]+)")
"""What nss-resolve asks systemd for over a socket of its own."""
QUERY = re.compile(
    rb"(?:..)?..\x01[\x00\x20]\x00\x01\x00\x00\x00\x00\x00[\x00-\x02]((?:[\x01-\x3f][ -~]+)+)\x00", re.DOTALL
)
DNS = 53


def traced(command: Sequence[str | Path], log: Path, *options: str) -> list[str]:
    """The command under strace, which writes to a file what `hosts` reads."""
    strace = [require("strace"), "-f", "-qq", "-x", "-s", "512", "--seccomp-bpf", "-e", f"trace={CALLS}"]
    return [*strace, "-e", "signal=none", *options, "-o", str(log), *map(str, command)]


def hosts(log: Path) -> set[str]:
    """Names that were looked up and addresses beyond this machine that were connected to, resolvers apart."""
    found: set[str] = set()
    with log.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            found |= set(_names(line))
            if (match := CONNECTED.search(line)) and int(match[1]) != DNS:
                address = ipaddress.ip_address(match[2])
                if not address.is_loopback and not address.is_unspecified:
                    found.add(str(address))
    return found


def _names(line: str) -> Iterable[str]:
    for match in PAYLOAD.finditer(line):
        payload = bytes.fromhex(match[1].replace("\\x", ""))
        if query := QUERY.match(payload):
            yield _name(query[1])
    yield from RESOLVED.findall(line)


def _name(labels: bytes) -> str:
    parts = []
    while labels:
        parts.append(labels[1 : labels[0] + 1].decode())
        labels = labels[labels[0] + 1 :]
    return ".".join(parts)


def signal_traced(tracer: subprocess.Popen[str], number: int) -> None:
    """Signal the traced command: strace would leave it and go."""
    for each in psutil.Process(tracer.pid).children():
        os.kill(each.pid, number)
