"""The error of adoption."""

from __future__ import annotations

from deploy.errors import DeployError


class AdoptError(DeployError):
    """A value has the wrong form, or a place does not hold what it should."""
