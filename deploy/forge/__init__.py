"""What delivery asks of the site that hosts the repository: proposals, comments, checks, issues, identities.

GitHub and GitLab differ in these, and the differences are in this package alone. GitHub Actions and GitLab CI say by a variable
which of them runs the job. Everywhere else, as in Jenkins and on a laptop, the address of `origin` decides. Only the
standard library is imported, because jobs that hold a token install no packages.
"""

from __future__ import annotations

import os

from deploy.forge.base import EndedRun, Forge
from deploy.forge.github import GitHub
from deploy.forge.gitlab import GitLab, origin_of

__all__ = ["EndedRun", "Forge", "GitHub", "GitLab", "current"]


def current() -> Forge:
    """The forge of the clone in the working directory.

    Every host is GitHub's, unless its name says `gitlab` or is the value of GITLAB_HOST.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true":
        return GitHub()
    if os.environ.get("GITLAB_CI") == "true":
        return GitLab()
    if os.environ.get("GH_REPO"):
        return GitHub()  # a name that gh alone reads
    host, _ = origin_of()
    if host and (host == os.environ.get("GITLAB_HOST") or "gitlab" in host.split(".")):
        return GitLab()
    return GitHub()
