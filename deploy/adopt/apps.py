"""The two GitHub Apps: finds them by name, or creates them with a browser, in which GitHub asks a person.

GitHub takes an App's whole description from a form that a page sends for the person, and answers with a code that is worth
its key once. So the page is served here, on loopback.
"""

from __future__ import annotations

import html
import json
import os
import secrets
import webbrowser
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from deploy.adopt.errors import AdoptError
from deploy.errors import GitHubError
from deploy.forge import github

PERMISSIONS = {"contents": "write", "pull_requests": "write"}
SECONDS = 600
"""How long a person may take for an App."""


@dataclass(frozen=True)
class App:
    number: int
    """By which rules name it."""
    client_id: str
    """By which workflows name it."""
    slug: str
    key: str = field(default="", repr=False)


def find(slug: str) -> App:
    """An App that exists.

    Raises:
        AdoptError: GitHub does not show it, or it may do too little.
    """
    try:
        found = github.get(f"/apps/{quote(slug, safe='')}")
    except GitHubError as error:
        raise AdoptError(f"the App {slug} (the end of its address, github.com/apps/SLUG): {error}") from None
    missing = [name for name, level in PERMISSIONS.items() if found["permissions"].get(name) != level]
    if missing:
        raise AdoptError(f"the App {slug} needs {' and '.join(f'{name}: write' for name in missing)}")
    return App(found["id"], found["client_id"], found["slug"])


def create(environment: str, owner: dict[str, Any]) -> App:
    """Have a person create an App.

    Raises:
        AdoptError: it took too long.
    """
    host = os.environ.get("GH_HOST", "github.com")
    place = "settings" if owner["type"] == "User" else f"organizations/{owner['login']}/settings"
    with Waiting() as server:
        manifest = {
            # GitHub takes 34 characters, and each name only once.
            "name": f"{owner['login'][:16]}-espalier-{environment}",
            "url": f"https://{host}/{os.environ['GH_REPO']}",
            "redirect_url": server.address,
            "public": False,
            "default_permissions": PERMISSIONS,
        }
        server.page = _page(f"https://{host}/{place}/apps/new?state={server.secret}", manifest)
        print(f"open {server.address} to create the App of {environment}", flush=True)
        webbrowser.open(server.address)
        code = server.wait()
    made = github.send("POST", f"/app-manifests/{quote(code, safe='')}/conversions")
    install = f"https://{host}/apps/{made['slug']}/installations/new"
    print(f"open {install} to install it on this repository only", flush=True)
    webbrowser.open(install)
    return App(made["id"], made["client_id"], made["slug"], made["pem"])


def _page(action: str, manifest: dict[str, Any]) -> bytes:
    value = html.escape(json.dumps(manifest), quote=True)
    return (
        f'<!doctype html><title>Espalier</title><form action="{html.escape(action)}" method="post">'
        f'<input type="hidden" name="manifest" value="{value}"><button>Continue on GitHub</button></form>'
        "<script>document.forms[0].submit()</script>"
    ).encode()


class Waiting(HTTPServer):
    """Serves the page, and takes the code with which GitHub sends the browser back."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"
        self.secret = secrets.token_urlsafe(16)
        """What the answer must repeat, so that no other page can send one."""
        self.page = b""
        self.code = ""
        self.timeout = SECONDS
        self.expired = False

    def wait(self) -> str:
        while not self.code:
            self.handle_request()
            if self.expired:
                raise AdoptError(f"the App was not created within {SECONDS // 60} minutes: run it again")
        return self.code

    def handle_timeout(self) -> None:
        self.expired = True

    def answer(self, path: str) -> tuple[int, bytes]:
        address = urlsplit(path)
        query = parse_qs(address.query)
        if address.path != "/":
            return 404, b"There is nothing here."
        if "code" not in query:
            return 200, self.page
        if query.get("state") != [self.secret]:
            return 400, b"This answer belongs to another request."
        self.code = query["code"][0]
        return 200, b"The App exists. Install it on the page that opens, then go on in the terminal."


class _Handler(BaseHTTPRequestHandler):
    server: Waiting

    def do_GET(self) -> None:
        status, content = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """The path has the code."""
