"""The errors of delivery that a person can do something about."""

from __future__ import annotations

from common.errors import EspalierError


class DeployError(EspalierError):
    """The message names the thing at fault and the remedy."""


class RegistryError(DeployError):
    """The registry cannot be asked, or does not have what it was asked for."""


class GitHubError(DeployError):
    """GitHub refuses, or cannot be reached."""


class ReleaseError(DeployError):
    """A release that must not or cannot be made."""
