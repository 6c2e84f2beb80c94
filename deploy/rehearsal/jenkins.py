"""Reads the stages of a Jenkinsfile and runs their steps as Jenkins does: `sh -xe` in a workspace, `stash` and `unstash`.

It is no Groovy: it knows the steps of this project's file alone. Conditions, agents, credentials and locks are not played; who
runs a stage gives what its credentials would be.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(
    r"""
    (?P<comment>//[^\n]*)
    | \bstage\((?P<stage>'[^']*')\)
    | \bsh[ ](?P<sh>'''.*?'''|'[^'\n]*')
    | \bstash[ ]name:[ ](?P<stash>'[^']*'),[ ]includes:[ ](?P<includes>'[^']*')
    | \bunstash[ ](?P<unstash>'[^']*')
    | (?P<string>'''.*?'''|'(?:\\.|[^'\n\\])*'|"(?:\\.|[^"\n\\])*")
    | (?P<open>\{) | (?P<close>\})
    """,
    re.VERBOSE | re.DOTALL,
)


class StepError(Exception):
    """A step failed; the message holds its output."""


@dataclass(frozen=True)
class Step:
    """A step of a stage."""

    stage: str
    """The names of the stages around it, the outermost first, with slashes between them."""
    kind: str
    """sh, stash or unstash."""
    text: str
    """The script, or the name of the stash."""
    includes: tuple[str, ...] = ()
    """Patterns of the files of a stash."""

    @property
    def workspace(self) -> str:
        """The outermost stage, which has an agent of its own."""
        return self.stage.partition("/")[0]


def steps(text: str) -> list[Step]:
    """The steps of a Jenkinsfile in order."""
    return list(_steps(text))


def _steps(text: str) -> Iterator[Step]:
    stages: list[tuple[int, str]] = []
    depth, named = 0, ""
    for token in _TOKEN.finditer(text):
        kind, value = token.lastgroup, token[0]
        if kind == "stage":
            named = token["stage"].strip("'")
        elif kind == "open":
            depth += 1
            if named:
                stages.append((depth, named))
                named = ""
        elif kind == "close":
            if stages and stages[-1][0] == depth:
                stages.pop()
            depth -= 1
        elif kind == "sh":
            yield Step(_path(stages), "sh", _script(token["sh"]))
        elif kind == "includes":
            patterns = tuple(each.strip() for each in token["includes"].strip("'").split(","))
            yield Step(_path(stages), "stash", token["stash"].strip("'"), patterns)
        elif kind == "unstash":
            yield Step(_path(stages), "unstash", value.split("'")[1])
    if depth:
        raise ValueError("the braces of the Jenkinsfile do not match")


def _path(stages: list[tuple[int, str]]) -> str:
    return "/".join(name for _, name in stages)


def _script(quoted: str) -> str:
    """What Groovy makes of a text between single quotes: a backslash at the end of a line joins it with the next."""
    text = quoted.strip("'").replace("\\\n", "")
    if "\\" in text:
        raise ValueError(f"a backslash in a step means something to Groovy: {quoted}")
    return text


def run(step: Step, workspace: Path, environment: Mapping[str, str], stashes: Path) -> str:
    """Run a step and give its output.

    Raises:
        StepError: it failed.
    """
    folder = stashes / step.text if step.kind != "sh" else stashes
    if step.kind == "stash":
        for pattern in step.includes:
            for file in workspace.glob(f"{pattern}/*" if pattern.endswith("**") else pattern):
                if file.is_file():
                    target = folder / file.relative_to(workspace)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, target)
        folder.mkdir(parents=True, exist_ok=True)
        return f"stashed {sum(each.is_file() for each in folder.rglob('*'))} files\n"
    if step.kind == "unstash":
        if not folder.is_dir():
            raise StepError(f"{step.stage}: there is no stash {step.text}")
        shutil.copytree(folder, workspace, dirs_exist_ok=True)
        return ""
    done = subprocess.run(
        ["sh", "-xec", step.text],
        cwd=workspace,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise StepError(f"{step.stage} ended with {done.returncode}:\n{step.text}\n{done.stdout[-8000:]}")
    return done.stdout
