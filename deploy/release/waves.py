"""The environments at a commit, and what each is promoted from."""

from __future__ import annotations

from dataclasses import dataclass

from deploy import clusters
from deploy.clusters import Environment
from deploy.errors import ReleaseError
from deploy.git import Git


@dataclass(frozen=True)
class Waves:
    """All environments, by wave."""

    environments: tuple[Environment, ...]

    @property
    def first(self) -> str:
        """Where releases go."""
        return self.environments[0].name

    def promoted(self, name: str | None) -> Environment:
        """The environment of this name, or the first of wave 1, which promotions and rollbacks are about.

        Raises:
            ReleaseError: there is no such environment.
        """
        if name is None:
            found = next((each for each in self.environments if each.wave == 1), None)
            if found is None:
                raise ReleaseError(f"{clusters.ENVIRONMENTS} has no environment of wave 1: name one")
            return found
        by_name = {each.name: each for each in self.environments}
        if name not in by_name:
            raise ReleaseError(f"{clusters.ENVIRONMENTS} has no environment {name!r} ({', '.join(by_name)})")
        return by_name[name]

    def before(self, environment: Environment) -> list[str]:
        """The environments of the wave before."""
        return [each.name for each in self.environments if each.wave == environment.wave - 1]


def read(git: Git, commit: str) -> Waves:
    """The environments that a commit lists.

    Raises:
        ClusterError: a list is missing or cannot be used.
    """
    return Waves(clusters.read(lambda path: git.read(commit, path)))
