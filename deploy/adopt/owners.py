"""Owners of code where one person has the project: a user has no teams, and GitHub lets no author approve their own change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FILE = Path(".github/CODEOWNERS")
_TEAM = re.compile(r"@[\w-]+/[\w.-]+")


def without_teams(text: str, login: str) -> str:
    """CODEOWNERS with the person in place of each team, named once a line."""
    lines = [_TEAM.sub(f"@{login}", line) for line in text.splitlines(keepends=True)]
    repeated = re.compile(rf"(@{re.escape(login)})(\s+@{re.escape(login)})+(?=\s|$)")
    return "".join(repeated.sub(r"\1", line) for line in lines)


def for_one_person(ruleset: dict[str, Any]) -> dict[str, Any]:
    """The rules without a second person: changes come by pull request with green checks, and their author merges them."""
    alone = {
        "required_approving_review_count": 0,
        "require_code_owner_review": False,
        "require_last_push_approval": False,
    }
    rules = [
        {**rule, "parameters": {**rule["parameters"], **alone}} if rule["type"] == "pull_request" else rule
        for rule in ruleset["rules"]
    ]
    return {**ruleset, "rules": rules}
