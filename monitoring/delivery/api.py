"""Asks GitHub's REST API."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from .errors import DeliveryError

SECONDS = 30
"""Then a request has failed."""
RESERVE = 50
"""Requests that are left to others who use the same token."""


class Api:
    """What GitHub answers about one repository: within the limit of requests, and by the ETag of the last answer."""

    def __init__(self, address: str, token: Callable[[], str], clock: Callable[[], float]) -> None:
        """Ask nothing yet.

        Args:
            address: of the repository, as https://api.github.com/repos/OWNER/NAME.
            token: asked for each request, as a mounted secret may be renewed; empty for none.
            clock: seconds since 1970.
        """
        self.address = address
        self._token = token
        self._clock = clock
        self._opener = urllib.request.build_opener(_SameHost())
        self._tagged: dict[str, tuple[str, Any]] = {}
        """By address, the ETag of the last answer and what was picked of it."""
        self._closed_until = 0.0

    def get(self, where: str, pick: Callable[[Any], Any], **query: str | int) -> Any:
        """What `pick` takes of the JSON at a path of the repository: answers are large, and few fields are needed.

        The last answer's ETag is sent along, which costs nothing of the limit while nothing changed.

        Args:
            where: the path below the repository's.
            pick: given the JSON.
            **query: parameters of the address.

        Raises:
            DeliveryError: GitHub cannot be asked, refuses, or answers something else than `pick` takes.
        """
        if self._clock() < self._closed_until:
            raise self._limited()
        address = f"{self.address}/{where}?{urllib.parse.urlencode(query)}".rstrip("?")
        headers = {
            "Accept": "application/vnd.github+json",
            "User-Agent": "espalier-delivery",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        if address in self._tagged:
            headers["If-None-Match"] = self._tagged[address][0]
        request = urllib.request.Request(address, headers=headers)  # noqa: S310  --api is http or https
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                self._respect_limit(answer.headers)
                content, tag = json.load(answer), answer.headers.get("ETag")
        except urllib.error.HTTPError as error:
            with error:
                self._respect_limit(error.headers)
                if error.code == 304:
                    return self._tagged[address][1]
                raise self._refusal(error, where) from None
        except (OSError, HTTPException, ValueError) as error:
            # URLError is an OSError, and JSON's error a ValueError.
            reason = getattr(error, "reason", None) or error
            raise DeliveryError(f"{self.address}/{where}: {reason or type(error).__name__}") from None
        try:
            picked = pick(content)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DeliveryError(f"{self.address}/{where}: the answer is not what it was: {error!r}") from None
        if tag:
            self._tagged[address] = tag, picked
        return picked

    def _respect_limit(self, headers: Message) -> None:
        """Ask nothing more until the limit is renewed, once it is nearly used up."""
        remaining, reset = headers.get("X-RateLimit-Remaining", ""), headers.get("X-RateLimit-Reset", "")
        limit = headers.get("X-RateLimit-Limit", "")
        if remaining.isdecimal() and reset.isdecimal():
            reserve = min(RESERVE, int(limit) // 10) if limit.isdecimal() else 0
            if int(remaining) <= reserve:
                self._closed_until = max(self._closed_until, float(reset))

    def _refusal(self, error: urllib.error.HTTPError, where: str) -> DeliveryError:
        try:
            said = str(json.load(error)["message"])
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            said = str(error.reason)
        after = error.headers.get("Retry-After", "")
        if error.code in (403, 429) and (after.isdecimal() or "rate limit" in said):
            # GitHub asks for a minute where it does not say for how long.
            wait = int(after) if after.isdecimal() else 60
            self._closed_until = max(self._closed_until, self._clock() + wait)
        if error.code in (403, 429) and self._clock() < self._closed_until:
            return self._limited()
        remedy = {
            401: "; the token is not valid: make a new one",
            403: "; the token must be allowed to read contents and actions of this repository",
            404: "; the repository's name must be right, and the token must be allowed to read it",
        }.get(error.code, "")
        return DeliveryError(f"{self.address}/{where}: {error.code} {said}{remedy}")

    def _limited(self) -> DeliveryError:
        wait = max(0.0, self._closed_until - self._clock())
        return DeliveryError(f"{self.address}: the limit of requests is used up for {wait:.0f} s", wait)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows GitHub to a renamed repository, and sends the token to no other host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        here, there = (urllib.parse.urlsplit(each)[:2] for each in (req.full_url, newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl) if here == there else None
