"""The real service, started by a program that plays docker: as a process instead of a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import write_mixed_bundle, write_number_bundle, write_value_bundle
from tests.e2e.clone import ROOT

ENGINE = """\
#!{python}
# Plays docker: `run` starts the service of this repository, the rest asks after that process.
import json, os, pathlib, signal, subprocess, sys, time
state = pathlib.Path({state!r})
command, arguments = sys.argv[1], sys.argv[2:]
state.joinpath("calls").open("a").write(json.dumps([command, *arguments]) + "\\n")
if command == "run":
    port = next(each.partition("PORT=")[2] for each in arguments if each.startswith("--env=ESPALIER_PORT="))
    log = state.joinpath("log").open("wb")
    subprocess.Popen(
        [sys.executable, "-c", {keeper!r}, str(state)], stdout=log, stderr=log, start_new_session=True,
        env={{**os.environ, "ESPALIER_PORT": port, "ESPALIER_DRAIN_SECONDS": "0"}},
    )
    print("a-container")
elif command == "inspect":
    ended = state.joinpath("status")
    print((ended.read_text() if ended.exists() else "0") if "ExitCode" in arguments[0] else str(not ended.exists()).lower())
elif command == "stop":
    os.kill(int(state.joinpath("pid").read_text()), signal.SIGTERM)
    while not state.joinpath("status").exists():
        time.sleep(0.05)
elif command == "logs":
    print(state.joinpath("log").read_text())
elif command == "rm":
    if not state.joinpath("status").exists() and state.joinpath("pid").exists():
        os.kill(int(state.joinpath("pid").read_text()), signal.SIGKILL)
"""
KEEPER = """\
import os, pathlib, subprocess, sys
state = pathlib.Path(sys.argv[1])
process = subprocess.Popen([sys.executable, "-m", "app"], cwd=os.environ["SERVICE"])
state.joinpath("pid").write_text(str(process.pid))
status = process.wait()
state.joinpath("status.tmp").write_text(str(status))
state.joinpath("status.tmp").rename(state / "status")
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as it is after `make image`, with an engine that was used for it."""
    write_number_bundle(tmp_path / "model")
    write_mixed_bundle(tmp_path / "models/plants/model")
    (tmp_path / "params.yaml").write_text("name: iris\n")
    (tmp_path / "models/plants/params.yaml").write_text("name: plants\n")
    (tmp_path / "build/images").mkdir(parents=True)
    for name in ("iris", "plants"):
        record = {"tool": "docker", "reference": f"espalier:{name}"}
        (tmp_path / f"build/images/{name}.json").write_text(json.dumps(record))
    (tmp_path / "state").mkdir()
    (tmp_path / "bin").mkdir()
    engine = tmp_path / "bin/docker"
    engine.write_text(ENGINE.format(python=sys.executable, state=str(tmp_path / "state"), keeper=KEEPER))
    engine.chmod(0o755)
    return tmp_path


def smoke(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.ci.smoke", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SERVICE": str(ROOT),
            "ESPALIER_MODEL_DIR": str(folder / "model"),
            **more,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "state/calls").read_text().splitlines()]


@pytest.mark.slow
def test_it_answers_every_example_and_ends_well(built: Path) -> None:
    done = smoke(built)
    assert done.returncode == 0, done.stderr
    examples = json.loads((built / "model/model.json").read_text())["examples"]
    assert f"answers {len(examples)} examples" in done.stdout
    run = calls(built)[0]
    assert {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--pull=never"} <= set(run)
    assert run[-1] == "espalier:iris"
    assert [each[0] for each in calls(built)][-3:] == ["stop", "inspect", "rm"]


@pytest.mark.slow
def test_the_values_of_a_regression_are_answered_too(built: Path) -> None:
    manifest = write_value_bundle(built / "model")
    done = smoke(built)
    assert done.returncode == 0, done.stderr
    assert f"answers 3 examples as weights {manifest.version}" in done.stdout


@pytest.mark.slow
def test_an_image_with_another_bundle_is_noticed_and_removed(built: Path) -> None:
    versions = [
        json.loads((built / folder / "model/model.json").read_text())["version"]
        for folder in ("", "models/plants")
    ]
    done = smoke(built, "--model", "plants")
    assert done.returncode == 1
    assert (
        done.stderr == f"error: it serves bundle {versions[0]}, and this clone has {versions[1]} of plants\n"
    )
    assert calls(built)[0][-1] == "espalier:plants"
    assert calls(built)[-1][0] == "rm"


@pytest.mark.slow
def test_an_image_that_does_not_start_is_quoted(built: Path) -> None:
    done = smoke(built, ESPALIER_MODEL_DIR=str(built / "nowhere"))
    assert done.returncode == 1
    assert "error: the container does not become ready: " in done.stderr
    assert "nowhere" in done.stderr


def test_without_an_image_it_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("name: iris\n")
    done = smoke(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: build/images/iris.json cannot be read: `make image MODEL=iris`")
