from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.address import local_address
from app.healthcheck import address, main
from app.server import listen
from app.settings import Settings, read_settings
from tests.app.processes import Running, running, start, wait_until_ready
from tests.tools import free_port


def test_asks_where_the_service_listens_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPALIER_HOST", raising=False)
    monkeypatch.delenv("ESPALIER_PORT", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    settings = Settings()
    assert address({}) == (settings.host, settings.port)


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({"ESPALIER_HOST": "0.0.0.0", "ESPALIER_PORT": "9000"}, ("127.0.0.1", 9000)),
        ({"ESPALIER_HOST": "::"}, ("::1", 8000)),
        ({"ESPALIER_HOST": "[0:0:0:0:0:0:0:0]"}, ("::1", 8000)),
        ({"ESPALIER_HOST": "::ffff:0.0.0.0"}, ("127.0.0.1", 8000)),
        ({"ESPALIER_HOST": "fe80::1%eth0"}, ("fe80::1%eth0", 8000)),
        ({"ESPALIER_HOST": "10.1.2.3"}, ("10.1.2.3", 8000)),
        ({"ESPALIER_HOST": "iris.example"}, ("iris.example", 8000)),
        ({"espalier_port": "81"}, ("127.0.0.1", 81)),
        ({"PORT": "9001"}, ("127.0.0.1", 9001)),
        ({"PORT": "invalid", "ESPALIER_PORT": "9000"}, ("127.0.0.1", 9000)),
    ],
)
def test_follows_the_settings(
    variables: dict[str, str], asked: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address(variables) == asked
    for name in ("ESPALIER_HOST", "ESPALIER_PORT", "PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert (local_address(settings.host), settings.port) == asked


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "[::1]", "localhost"])
def test_reaches_a_service_wherever_it_listens(host: str) -> None:
    port = free_port()
    with listen(Settings(host=host, port=port)) as listener, ThreadPoolExecutor() as thread:
        done = thread.submit(main, {"ESPALIER_HOST": host, "ESPALIER_PORT": str(port)})
        client, _ = listener.accept()
        with client:
            assert client.recv(1000).startswith(b"GET /health/ready HTTP/1.1\r\n")
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert done.result() == 0


@pytest.mark.slow
def test_a_service_that_is_ready_is_healthy(number_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(number_model) as service:
        assert main({"ESPALIER_PORT": str(service.port)}) == 0
    assert "ready" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_on_the_port_of_its_platform_is_healthy(
    number_model: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("PORT", str(port))
    with start(number_model, workers=workers) as process:
        try:
            wait_until_ready(Running(process, port))
            assert main({"PORT": str(port)}) == 0
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_service_that_drains_is_not(number_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(number_model, drain_seconds=5) as service:
        service.process.terminate()
        assert service.process.stderr is not None
        for line in service.process.stderr:
            if "draining" in line:
                break
        assert main({"ESPALIER_PORT": str(service.port)}) == 1
    assert "draining" in capfd.readouterr().out


def test_nothing_that_listens_is_not_healthy(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main({"ESPALIER_PORT": str(port)}) == 1
    assert f"nothing answers on http://127.0.0.1:{port}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ESPALIER_HOST", ""),
        ("ESPALIER_HOST", "a" * 64),
        ("ESPALIER_HOST", "::1\0"),
        ("ESPALIER_HOST", "local\nhost"),
        ("ESPALIER_HOST", "\udcff"),
        ("ESPALIER_HOST", "fe80::1%a\nb"),
        ("ESPALIER_PORT", ""),
        ("ESPALIER_PORT", "0"),
        ("ESPALIER_PORT", "-1"),
        ("ESPALIER_PORT", "70000"),
        ("ESPALIER_PORT", "text"),
        ("ESPALIER_PORT", "9" * 5000),
        ("PORT", ""),
        ("PORT", "text"),
    ],
)
def test_what_the_service_refuses_is_one_line(
    name: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main({name: value}) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}=")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "fe80::1%nope"])
def test_a_host_that_is_not_found_is_one_line(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main({"ESPALIER_HOST": host}) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_imports_none_of_the_libraries() -> None:
    """It runs beside the service every few seconds, on the same share of a core."""
    code = (
        "import sys; import app.healthcheck; "
        "print(*{'pydantic', 'numpy', 'fastapi', 'uvicorn', 'app.settings'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
