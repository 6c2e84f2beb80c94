"""Makes what runs the stages of all models in a scheduler, from DVC's own graph.

airflow   write the stages into the Airflow DAG; a project that has deleted its file needs no Airflow, and nothing is written
kubeflow  compile the Kubeflow pipeline into build/kubeflow/pipeline.yaml, which is uploaded and in no commit
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from common import files
from common.command import run
from deploy import programs
from deploy.errors import DeployError
from deploy.schedulers import graph
from deploy.schedulers.graph import Graph

DAG = Path("deploy/schedulers/airflow/espalier_dag.py")
KUBEFLOW = Path("deploy/schedulers/kubeflow")
PIPELINE = Path("build/kubeflow/pipeline.yaml")
WIDTH = 110
"""Of a line, as ruff formats it: in pyproject.toml."""
_STAGES = re.compile(r"^STAGES = \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.schedulers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("airflow", "kubeflow"))
    parser.add_argument(
        "--check", action="store_true", help="of airflow: write nothing; fail if the DAG is not current"
    )
    options = parser.parse_args()
    if options.command == "kubeflow":
        compile_pipeline(graph.read(), PIPELINE)
        print(PIPELINE)
    elif DAG.exists():
        old = DAG.read_text(encoding="utf-8")
        new = dag(old, graph.read())
        if new != old and options.check:
            raise DeployError(
                f"not current: {DAG}, which follows from the stages of all models: run `make packages`"
            )
        if new != old:
            files.write_text(DAG, new)


def dag(text: str, found: Graph) -> str:
    """The text of a DAG with these stages, formatted as ruff does.

    Raises:
        DeployError: the text has no place for them.
    """
    lines = ["STAGES = {"]
    for model, stages in found.items():
        lines.append(f"    {json.dumps(model)}: {{")
        for stage, needed in stages.items():
            line = f"        {json.dumps(stage)}: {json.dumps(needed)},"
            if len(line) > WIDTH:
                listed = "".join(f"            {json.dumps(each)},\n" for each in needed)
                line = f"        {json.dumps(stage)}: [\n{listed}        ],"
            lines.append(line)
        lines.append("    },")
    lines.append("}\n")
    text, count = _STAGES.subn(lambda _: "\n".join(lines), text)
    if count != 1:
        raise DeployError(
            f"{DAG} has no dictionary STAGES to write: restore it with `git checkout {DAG}`, or delete it"
        )
    return text


def compile_pipeline(found: Graph, output: Path) -> None:
    """Write the Kubeflow pipeline, with the compiler of kfp in an environment of its own.

    Raises:
        DeployError: uv is not installed, cannot get kfp, or kfp refuses the pipeline.
    """
    uv = programs.find("uv", "`make kubeflow` gets it")
    # The compiler insists on the ending.
    with files.replacing(output.parent) as folder:
        folder.mkdir()
        command = [str(KUBEFLOW / "pipeline.py"), str(folder / output.name)]
        programs.call(
            [uv, "run", "--quiet", "--locked", "--isolated", "--project", str(KUBEFLOW), "python", *command],
            stdin=json.dumps(found),
        )


if __name__ == "__main__":
    run(main)
