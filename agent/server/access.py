"""Access: whether a request may come in, by its Host, its Origin and its token. Headers in, a refusal out.

Host: a page elsewhere may have its own name resolve to this machine and then read what it likes as "same origin"
(DNS rebinding). So names other than those expected are refused; IP addresses cannot be rebound and pass.
Origin: browsers let any page open a websocket anywhere, and say which page it is. Programs say nothing.
Pure: no I/O, and nothing is logged here.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import Headers

SUBPROTOCOL = "realtime"
_KEY = "openai-insecure-api-key."
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request does not come in."""

    status: HTTPStatus
    reason: str
    """One word, for the metrics"""
    message: str
    """What the other side may do about it"""
    headers: Mapping[str, str] = field(default_factory=dict)


TOKEN_NEEDED = Refusal(
    HTTPStatus.UNAUTHORIZED,
    "token",
    f"A token is needed: as `Authorization: Bearer TOKEN`, or as the subprotocols `{SUBPROTOCOL}` and `{_KEY}TOKEN`.\n",
    {"WWW-Authenticate": 'Bearer realm="noema"'},
)


class Access:
    """Who may come in.

    Args:
        token: what clients must show; None: nothing.
        hosts: names by which this machine may be called.
        origins: pages from elsewhere that may connect, as `https://example.org`.
    """

    def __init__(self, token: str | None, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self.token = token
        self._hosts = {host.lower().removesuffix(".") for host in hosts} | {"localhost"}
        self._origins = {origin.lower().removesuffix("/") for origin in origins}

    def page(self, headers: Headers) -> Refusal | None:
        """Whether a page may be given out."""
        place = _host(headers)
        if place is None:
            return Refusal(HTTPStatus.BAD_REQUEST, "host", "The Host header is missing or cannot be read.\n")
        name = place[0]
        if name in self._hosts or _is_address(name):
            return None
        return Refusal(HTTPStatus.FORBIDDEN, "host", "This machine does not go by that name; add it to server.hosts.\n")

    def websocket(self, headers: Headers) -> Refusal | None:
        """Whether a websocket may be opened, its token apart."""
        return self.page(headers) or self._origin(headers)

    def secret(self, headers: Headers) -> Refusal | None:
        """Whether the token is shown where one is needed."""
        if self.token is None or shows(headers, self.token):
            return None
        return TOKEN_NEEDED

    def _origin(self, headers: Headers) -> Refusal | None:
        given = headers.get_all("Origin")
        if not given or (len(given) == 1 and (given[0].lower() in self._origins or _is_same(given[0], _host(headers)))):
            return None
        return Refusal(
            HTTPStatus.FORBIDDEN, "origin", "Pages from elsewhere may not connect; add theirs to server.origins.\n"
        )


def shows(headers: Headers, token: str) -> bool:
    """Whether a request shows this token. Takes as long whatever it shows."""
    expected = _digest(token)
    found = [hmac.compare_digest(_digest(offered), expected) for offered in offered_tokens(headers)]
    return any(found)


def offered_tokens(headers: Headers) -> list[str]:
    """Every token in a request, in its `Authorization` or among its subprotocols."""
    tokens = [
        value[7:].strip() for value in headers.get_all("Authorization") if value[:7].lower() == "bearer "
    ]  # RFC 6750, section 2.1
    return tokens + [name.removeprefix(_KEY) for name in subprotocols(headers) if name.startswith(_KEY)]


def subprotocols(headers: Headers) -> list[str]:
    """What the client would speak, in its order."""
    return [name.strip() for line in headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")]


def _digest(token: str) -> bytes:
    # Of equal length, so that the comparison tells nothing about the token's.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _host(headers: Headers) -> tuple[str, int | None] | None:
    """Name and port that the client called."""
    given = headers.get_all("Host")
    match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        return None
    return match[1].strip("[]").lower().removesuffix("."), int(match[2]) if match[2] else None


def _is_same(origin: str, host: tuple[str, int | None] | None) -> bool:
    """Whether a page came from the place that it connects to. A proxy may have taken off the TLS."""
    try:
        page = urlsplit(origin)
        default = _PORTS.get(page.scheme)
        place = (page.hostname, page.port or default)
    except ValueError:
        return False
    return host is not None and default is not None and place == (host[0], host[1] or default)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
