"""Errors of the deployment tools that a person can act on."""

from __future__ import annotations

from common.errors import EspalierError


class DeployError(EspalierError):
    """The message names the thing at fault and the remedy."""


class RegistryError(DeployError):
    """The registry cannot be asked, or lacks what it was asked for."""


class ForgeError(DeployError):
    """The site that hosts the repository refuses, or cannot be reached."""


class GitHubError(ForgeError):
    """GitHub refuses, or cannot be reached."""


class GitLabError(ForgeError):
    """GitLab refuses, or cannot be reached."""


class ReleaseError(DeployError):
    """A release is refused or cannot be made."""
