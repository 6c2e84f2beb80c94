"""Runs a compiled Kubeflow pipeline here: each component's command in the order of the graph, with what they hand over."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from tests.e2e.clone import ROOT

PLACES = {"/app/.venv/bin/python": sys.executable, "/app/start.py": str(ROOT / "deploy/training/start.py")}
"""What is elsewhere in the image."""
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_OUTPUT = re.compile(r"\{\{\$\.outputs\.parameters\['([^']+)'\]\.output_file\}\}")
Tasks = Mapping[str, Any]


@dataclass
class Pipeline:
    """A compiled pipeline.

    Attributes:
        spec: the pipeline.
        platform: what Kubernetes adds.
        folder: for what components write.
        environment: of every component.
        secrets: the content of Secrets by their names.
        said: what each component said, by its path in the graph, in the order in which they ran.
    """

    spec: Mapping[str, Any]
    platform: Mapping[str, Any]
    folder: Path
    environment: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, str]]
    said: dict[str, str] = field(default_factory=dict)

    def run(self, **parameters: str) -> None:
        root = self.spec["root"]
        defaults = {
            name: each.get("defaultValue", "")
            for name, each in root["inputDefinitions"]["parameters"].items()
        }
        self._run_tasks(root["dag"]["tasks"], {**defaults, **parameters}, "")

    def _run_tasks(self, tasks: Tasks, given: Mapping[str, str], path: str) -> None:
        made: dict[tuple[str, str], str] = {}

        def run(name: str) -> None:
            task, place = tasks[name], f"{path}{tasks[name]['taskInfo']['name']}"
            component = self.spec["components"][task["componentRef"]["name"]]
            inputs = {}
            for key, each in task.get("inputs", {}).get("parameters", {}).items():
                if "componentInputParameter" in each:
                    inputs[key] = given[each["componentInputParameter"]]
                elif "taskOutputParameter" in each:
                    source = each["taskOutputParameter"]
                    inputs[key] = made[source["producerTask"], source["outputParameterKey"]]
                else:
                    inputs[key] = each["runtimeValue"]["constant"]
            if "dag" in component:
                self._run_tasks(component["dag"]["tasks"], inputs, f"{place}.")
            else:
                outputs = self._execute(component["executorLabel"], inputs, place)
                made.update({(name, key): value for key, value in outputs.items()})

        waiting = TopologicalSorter({name: each.get("dependentTasks", ()) for name, each in tasks.items()})
        waiting.prepare()
        with ThreadPoolExecutor() as pool:
            while waiting.is_active():
                ready = waiting.get_ready()
                list(pool.map(run, ready))
                waiting.done(*ready)

    def _execute(self, label: str, inputs: Mapping[str, str], place: str) -> dict[str, str]:
        container = self.spec["deploymentSpec"]["executors"][label]["container"]
        assert (
            _INPUT.sub(lambda found: inputs[found[1]], container["image"])
            == "registry.example.com/training:1"
        )
        settings = self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(label, {})
        secret = {
            pair["envVar"]: self.secrets[each["secretName"]][pair["secretKey"]]
            for each in settings.get("secretAsEnv", ())
            for pair in each["keyToEnv"]
        }
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            assert settings["emptyDirMounts"] == [{"mountPath": "/work", "volumeName": "work"}]
            outputs: dict[str, Path] = {}

            def output(found: re.Match[str]) -> str:
                outputs[found[1]] = Path(work) / "outputs" / found[1]
                return str(outputs[found[1]])

            words = [
                _OUTPUT.sub(output, _INPUT.sub(lambda found: inputs[found[1]], word))
                for word in (*container["command"], *container.get("args", ()))
            ]
            for inside, here in {**PLACES, "/work/source": f"{work}/source"}.items():
                words = [word.replace(inside, here) for word in words]
            done = subprocess.run(
                words,
                cwd=work,
                env={**self.environment, "HOME": work, "RUN_WORK": work, **secret},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            self.said[place] = done.stdout
            assert done.returncode == 0, f"{place}: {words}: {done.stdout[-5000:]}"
            return {key: file.read_text() for key, file in outputs.items()}
