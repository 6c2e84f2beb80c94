"""The identities of a job outside GitHub Actions: git's, to push, and AWS's, without a key that anybody stores.

GitHub has actions for both (actions/checkout, aws-actions/configure-aws-credentials).
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from common.git import git
from deploy.errors import DeployError, ForgeError

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+")


def let_git_push(user: str, variable: str) -> None:
    """Have git in this clone answer its host with the token in a variable; no file and no address holds the token.

    Raises:
        ForgeError: there is no token, or `origin` is reached in another way than HTTPS.
    """
    if not os.environ.get(variable):
        raise ForgeError(f"there is no token to push with: {variable} is not set (docs/ci-systems.md)")
    parts = urlsplit(git("config", "--get", "remote.origin.url").strip())
    if parts.scheme != "https" or not parts.hostname:
        raise ForgeError("a token pushes to an address of https://, and `origin` has another one")
    # GitLab's runner puts a token that cannot push into the address.
    host = parts.netloc.rpartition("@")[2]
    git("remote", "set-url", "origin", urlunsplit((parts.scheme, host, parts.path, "", "")))
    helper = f'!f() {{ test "$1" != get || printf "username={user}\\npassword=%s\\n" "${variable}"; }}; f'
    section = f"credential.https://{host}.helper"
    # An empty one forgets those of the machine.
    git("config", "--replace-all", section, "")
    git("config", "--add", section, helper)


def aws(role: str) -> str:
    """What a shell has to run so that AWS's programs take a role: they exchange the job's own token for it.

    Args:
        role: ARN; empty for none, and then the text is empty.

    Raises:
        DeployError: it is no role, or the job has no token.
    """
    if not role:
        return ""
    if not _ROLE.fullmatch(role):
        raise DeployError(f"{role!r} is not arn:aws:iam::ACCOUNT:role/NAME")
    file = os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if not file:
        token = os.environ.get("AWS_ID_TOKEN")
        if not token:
            raise DeployError(
                f"there is no token to exchange for {role}: the job gives AWS_ID_TOKEN or AWS_WEB_IDENTITY_TOKEN_FILE"
            )
        handle, file = tempfile.mkstemp(prefix="aws-")
        os.close(handle)
        Path(file).write_text(token, encoding="utf-8")
    values = {"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": file, "AWS_ROLE_SESSION_NAME": "espalier"}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
