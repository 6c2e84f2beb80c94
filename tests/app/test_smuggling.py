"""Request smuggling through real proxies: what a proxy forwards as one request, the service must read as one.

Each attempt hides a request for a path of its own in the body of another, framed so that two parsers may
disagree about where the body ends. The proxy logs every request that it forwards and the service every request
that it answers: a path that only the service knows was smuggled. Ordinary clients share the proxy's
connections to the service, and must get the answers to their own rows.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from app.contract import read_bundle
from app.metrics import ModelMetrics
from app.service import Service
from tests.app.processes import PATIENCE, Running, running
from tests.bundles import IRIS_FEATURES
from tests.tools import free_port, require
from tests.wire import Wire, post

pytestmark = pytest.mark.slow

_ATTACKERS = 12
_WAIT_SECONDS = 0.4
"""What an attempt may take: many leave the proxy waiting for more of a body."""

_TRANSFER_ENCODINGS = (
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: CHUNKED",
    "transfer-encoding:chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: chunked\x00",
    "Transfer-Encoding : chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: x\r\n Transfer-Encoding: chunked",
    "X: x\rTransfer-Encoding: chunked",
    "X: x\nTransfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    'Transfer-Encoding: "chunked"',
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer_Encoding: chunked",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    "Connection: Content-Length\r\nTransfer-Encoding: chunked",
)
_LENGTHS = (
    "+{0}",
    "-{0}",
    "0x{0:x}",
    "0{0}",
    "{0}.0",
    "{0},{0}",
    "{0}, 0",
    "0, {0}",
    "{0} ",
    "{0}\x00",
    "{0}\t",
    "{0};0",
    "1e1",
    "",
    "{0}\r\nContent-Length: {0}",
    "{0}\r\nContent-Length: 0",
    "0\r\nContent-Length: {0}",
    "{0}\r\n 0",
    "18446744073709551616",
    "18446744073709551617",
    "4294967296",
)
_CHUNK_SIZES = (
    "{0:x}",
    "{0:X}",
    "000{0:x}",
    "0x{0:x}",
    "+{0:x}",
    "-{0:x}",
    " {0:x}",
    "{0:x} ",
    "{0:x}\t",
    "{0:x};a=b",
    '{0:x};a="b"',
    '{0:x};a="\\"',
    "{0:x};a\n",
    "{0:x};a\r",
    "{0:x}\n",
    "{0:x}\r",
    "{0:x}\x00",
    "{0:x}_0",
    "{0:x},",
    "10000000000000000{0:x}",
    "ffffffffffffffff{0:x}",
)


@dataclass(frozen=True)
class Proxy:
    port: int
    log: Path

    def forwarded(self) -> Counter[str]:
        return _marked(self.log.read_text(errors="replace"))


@pytest.mark.parametrize("name", ["nginx", "nginx, unbuffered", "haproxy"])
def test_no_request_is_smuggled(
    start_proxy: Callable[[str, str], Proxy], name: str, service: Running, log: list[str], known: Service
) -> None:
    """Given attempts in every framing, when ordinary clients share the connections, then all is in step."""
    proxy = start_proxy(name, service.netloc)
    attempts = _attempts()

    def play(number: int) -> bool:
        _attack(proxy.port, attempts, number)
        return all(_is_answered(proxy.port, known, Random(f"{number} {victim}")) for victim in range(2))

    with ThreadPoolExecutor(_ATTACKERS) as pool:
        in_step = list(pool.map(play, range(len(attempts))))

    assert [attempts[number] for number, each in enumerate(in_step) if not each] == []
    assert _smuggled(attempts, log, proxy) == {}


def test_a_server_that_knows_no_chunks_is_found_out(start_proxy: Callable[[str, str], Proxy]) -> None:
    """The same attempts succeed where the server ignores Transfer-Encoding and the proxy passes it on."""
    with _NaiveServer(("127.0.0.1", 0), _NaiveHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        proxy = start_proxy("haproxy", f"127.0.0.1:{server.server_address[1]}")
        attempts = _attempts()

        with ThreadPoolExecutor(_ATTACKERS) as pool:
            list(pool.map(partial(_attack, proxy.port, attempts), range(len(attempts))))

        assert _smuggled(attempts, server.requested, proxy) != {}
        server.shutdown()


def _smuggled(attempts: Sequence[bytes], log: Sequence[str], proxy: Proxy) -> dict[str, bytes]:
    """The paths that the server saw more often than the proxy forwarded, and the attempts that hid them."""
    _wait_for_quiet(log)
    seen, forwarded = _marked("\n".join(log)), proxy.forwarded()
    # Some attempts are two honest requests in a row, so both logs are known to be read.
    assert seen & forwarded
    return {path: attempts[int(path.rpartition("-")[2])] for path in seen - forwarded}


class _NaiveServer(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requested: list[str] = []


class _NaiveHandler(StreamRequestHandler):
    """Reads bodies by their Content-Length alone."""

    server: _NaiveServer

    def handle(self) -> None:
        with suppress(OSError):
            while line := self.rfile.readline():
                self.server.requested.append(line.decode("latin-1"))
                length = 0
                while (header := self.rfile.readline()).strip():
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                self.rfile.read(length)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _attempts() -> list[bytes]:
    return [attempt.replace(b"NUMBER", b"%d" % number) for number, attempt in enumerate(_framings())]


def _framings() -> Iterator[bytes]:
    """Requests whose bodies hold another one."""
    row = json.dumps(_row(Random(0))).encode()
    hidden = b"GET /smuggled-NUMBER HTTP/1.1\r\nHost: service\r\nX: "
    whole = b"GET /smuggled-NUMBER HTTP/1.1\r\nHost: service\r\n\r\n"
    for encoding in _TRANSFER_ENCODINGS:
        for inner in (hidden, whole):
            ended = b"0\r\n\r\n" + inner
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
            size_line = b"%x\r\n" % len(inner)
            # The length counts all, and the chunks end before; or the other way round; or there is no length.
            yield post("/predict", ended, encoding, f"Content-Length: {len(ended)}")
            yield post("/predict", ended, f"Content-Length: {len(ended)}", encoding)
            yield post("/predict", chunk, encoding, f"Content-Length: {len(size_line)}")
            yield post("/predict", ended, encoding)
            yield post("/predict", ended, encoding, version="1.0")
            yield b"GET /health/live HTTP/1.1\r\nHost: service\r\n%b\r\n\r\n%b" % (
                encoding.encode("latin-1"),
                ended,
            )
    for length in _LENGTHS:
        for content in (row + whole, whole):
            yield post("/predict", content, f"Content-Length: {length.format(len(content))}")
            yield post("/predict", content, f"Content-Length: {length.format(len(content) - len(whole))}")
            yield b"GET /health/live HTTP/1.1\r\nHost: service\r\nContent-Length: %b\r\n\r\n%b" % (
                length.format(len(content)).encode("latin-1"),
                content,
            )
    for size in _CHUNK_SIZES:
        for end in (b"\r\n", b"\n", b"\r"):
            line = size.format(len(row)).encode("latin-1") + end
            yield post("/predict", line + row + b"\r\n0\r\n\r\n" + whole, "Transfer-Encoding: chunked")
            yield post("/predict", line + row + end + b"0" + end + end + whole, "Transfer-Encoding: chunked")
            yield post("/predict", line + whole, "Transfer-Encoding: chunked")
    for target in ("http://other/predict", "//predict", "/predict?a b", "/predict HTTP/1.1\r\nX: x", "*"):
        yield post(target, whole, "Content-Length: 0")
    for header in (
        "Expect: 100-continue",
        "Upgrade: h2c\r\nConnection: Upgrade",
        "Connection: close",
        "Host: two",
    ):
        yield post("/predict", row + whole, header, f"Content-Length: {len(row)}")


def _attack(port: int, attempts: Sequence[bytes], number: int) -> None:
    with suppress(OSError), Wire(port, _WAIT_SECONDS) as wire:
        wire.send(attempts[number])
        wire.end()


def _is_answered(port: int, known: Service, random: Random) -> bool:
    """Whether an ordinary client gets the answer to its own row."""
    body = json.dumps(_row(random)).encode()
    with Wire(port, PATIENCE) as wire:
        wire.send(post("/predict", body, "Content-Type: application/json"))
        answer = wire.answer()
    return (answer.status, answer.body) == (200, known.predict(body)[0])


def _row(random: Random) -> dict[str, float]:
    ranges = zip(IRIS_FEATURES, ((4.5, 7.5), (2, 4), (1, 6), (0.2, 2.4)), strict=True)
    return {name: round(random.uniform(*limits), 3) for name, limits in ranges}


def _marked(text: str) -> Counter[str]:
    return Counter(re.findall(r"/smuggled-\d+", text))


def _wait_for_quiet(lines: Sequence[str]) -> None:
    """Until nothing was logged for a while."""
    before = -1
    while before != len(lines):
        before = len(lines)
        time.sleep(1)


@pytest.fixture(scope="module")
def known(number_model: Path) -> Service:
    bundle = read_bundle(number_model)
    return Service(bundle, ModelMetrics(bundle.manifest, CollectorRegistry()))


@pytest.fixture
def service(number_model: Path) -> Iterator[Running]:
    with running(number_model, access_log=True) as service:
        yield service


@pytest.fixture
def log(service: Running) -> list[str]:
    """The lines that the service has logged so far; without a reader it would have to wait."""
    lines: list[str] = []
    assert service.process.stderr is not None
    Thread(target=lines.extend, args=(service.process.stderr,), daemon=True).start()
    return lines


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Callable[[str, str], Proxy]]:
    """Starts a proxy in front of a server; it keeps its connections to the server open and shares them."""
    port = free_port()
    log, configuration = tmp_path / "proxy.log", tmp_path / "proxy.conf"
    with ExitStack() as stack:

        def start(name: str, server: str) -> Proxy:
            if name == "haproxy":
                command = [require("haproxy"), "-db", "-f", str(configuration)]
                configuration.write_text(_HAPROXY.format(port=port, server=server))
            else:
                command = [
                    require("nginx"),
                    "-p",
                    str(tmp_path),
                    "-e",
                    "errors.log",
                    "-c",
                    str(configuration),
                ]
                buffering = "off" if "unbuffered" in name else "on"
                configuration.write_text(
                    _NGINX.format(port=port, server=server, buffering=buffering, folder=tmp_path)
                )
            with log.open("wb") as output:
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            stack.callback(process.wait, PATIENCE)
            stack.callback(process.terminate)
            _wait_for_port(port, process)
            return Proxy(port, log)

        yield start


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError):
            Wire(port, PATIENCE).socket.close()
            return
        assert process.poll() is None, "the proxy does not start"
        assert time.monotonic() < deadline
        time.sleep(0.05)


_NGINX = """
daemon off;
pid {folder}/pid;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  log_format requests '$request_uri $status';
  access_log /dev/stdout requests;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  ignore_invalid_headers off;
  upstream service {{ server {server}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering {buffering};
    }}
  }}
}}
"""

_HAPROXY = """
global
  log stdout format raw local0
defaults
  mode http
  log global
  log-format "%HU %ST"
  timeout connect 5s
  timeout client 5s
  timeout server 30s
  http-reuse always
  option http-keep-alive
frontend all
  bind 127.0.0.1:{port}
  default_backend service
backend service
  server one {server}
"""
