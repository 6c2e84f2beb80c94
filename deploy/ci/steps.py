"""What steps of workflows pass on: outputs for later steps, and text on the run's page.

Outputs are lines NAME=VALUE in the file that GITHUB_OUTPUT names. In other CI systems STEP_OUTPUT names it; they have no page.
"""

from __future__ import annotations

import os
from pathlib import Path

from deploy.errors import DeployError


def output(**values: str | bool) -> None:
    """Print outputs of this step and, in a workflow, set them.

    Raises:
        DeployError: a value has more than one line, which could set another output.
    """
    for name, value in values.items():
        print(f"{name}={_set(name, value)}")


def set_output(**values: str | bool) -> None:
    """As `output`, without printing."""
    for name, value in values.items():
        _set(name, value)


def summary(markdown: str) -> None:
    """Add to the page of the run."""
    _append("GITHUB_STEP_SUMMARY", markdown.rstrip("\n") + "\n")


def environment(name: str) -> str:
    """A variable that the workflow must set.

    Raises:
        DeployError: it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise DeployError(f"{name} is not set: the workflow has to give it in `env`")
    return value


def _set(name: str, value: str | bool) -> str:
    text = str(value).lower() if isinstance(value, bool) else value
    if len(text.splitlines()) > 1:
        raise DeployError(f"output {name} has more than one line")
    _append("STEP_OUTPUT" if os.environ.get("STEP_OUTPUT") else "GITHUB_OUTPUT", f"{name}={text}\n")
    return text


def _append(variable: str, text: str) -> None:
    if path := os.environ.get(variable):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
