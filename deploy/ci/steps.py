"""What a step of a workflow can say to the ones after it: outputs, and text on the run's page."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.errors import DeployError


def output(**values: str | bool) -> None:
    """Set outputs of this step; without Actions they are printed only.

    Raises:
        DeployError: a value has more than one line, which could set another output.
    """
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else value
        if len(text.splitlines()) > 1:
            raise DeployError(f"output {name} has more than one line")
        print(f"{name}={text}")
        _append("GITHUB_OUTPUT", f"{name}={text}\n")


def summary(markdown: str) -> None:
    """Add to the page of the run."""
    _append("GITHUB_STEP_SUMMARY", markdown.rstrip("\n") + "\n")


def environment(name: str) -> str:
    """A variable that the workflow must give.

    Raises:
        DeployError: it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise DeployError(f"{name} is not set: the workflow has to give it in `env`")
    return value


def _append(variable: str, text: str) -> None:
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
