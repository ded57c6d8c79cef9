"""Server address: which server a client talks to, how it shows that it may, and whom it trusts. No I/O but files.

ws://host:8765 (or wss, http, https)          a server
http://host:8765/listen#session=…&token=…     what its owner shares with listeners
"""

import os
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from agent.errors import UsageError

DEFAULT_URL = "ws://127.0.0.1:8765"
TOKEN_VARIABLE = "NOEMA_TOKEN"
_SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}
_ENDPOINTS = ("/v1/realtime/translations", "/v1/realtime", "/listen")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server and the way to it."""

    url: str
    """Scheme, host and port, as `ws://127.0.0.1:8765`, and what path a proxy may have put before the server's own"""
    token: str | None = None
    ca: Path | None = None
    """The certificate that vouches for the server, or the server's own; None: those that the system knows"""

    @property
    def is_secure(self) -> bool:
        """Whether nobody on the way can listen in."""
        return self.url.startswith("wss://")

    @property
    def is_here(self) -> bool:
        """Whether the server is on this machine."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")

    def context(self) -> ssl.SSLContext | None:
        """Whom to trust, where there is TLS.

        Raises:
            UsageError: the file holds no certificate.
        """
        if not self.is_secure:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise UsageError(f"--ca {self.ca}: no certificate in PEM is in it") from error


@dataclass(frozen=True, slots=True)
class ShareLink:
    """What somebody was given to listen with."""

    url: str
    session: str
    token: str | None
    language: str | None


def server_url(text: str) -> str:
    """The URL of a server as it was typed.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(text.strip())
        scheme, port = _SCHEMES.get(parts.scheme), parts.port
    except ValueError as error:
        raise UsageError(f"'{text}' is no address of a server: {error}") from error
    if scheme is None or not parts.hostname:
        raise UsageError(f"'{text}' is no address of a server; give one such as {DEFAULT_URL}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/")
    for endpoint in _ENDPOINTS:
        path = path.removesuffix(endpoint)
    return f"{scheme}://{host}{f':{port}' if port else ''}{path}"


def share_link(text: str) -> ShareLink:
    """A link as a server's owner shares it.

    Raises:
        UsageError: it is none.
    """
    fields = parse_qs(urlsplit(text.strip()).fragment)
    named = {name: values[0] for name, values in fields.items()}
    if "session" not in named:
        raise UsageError("that link names no session; give the whole of it, in quotes: http://…/listen#session=…")
    return ShareLink(server_url(text), named["session"], named.get("token"), named.get("language"))


def address(url: str, token: str | None, token_file: Path | None, ca: Path | None) -> ServerAddress:
    """The way to a server. A token that is given goes before one in a file, and that before the environment's.

    Raises:
        UsageError: the URL is none, or a file cannot be used.
    """
    if token is None and token_file is not None:
        token = _first_line(token_file)
    token = token or os.environ.get(TOKEN_VARIABLE, "").strip() or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("the token holds a character that no token has; copy it once more")
    found = ServerAddress(server_url(url), token, ca)
    if ca is not None and not found.is_secure:
        raise UsageError(f"--ca is for wss://; {found.url} has no certificate to check")
    if ca is not None and not ca.is_file():
        raise UsageError(f"--ca {ca}: no such file")
    return found


def with_token(place: ServerAddress, token: str | None) -> ServerAddress:
    """The same server, with another token if there is one."""
    return place if token is None else replace(place, token=token)


def _first_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").strip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {file}: it cannot be read") from error
    if not lines:
        raise UsageError(f"--token-file {file}: it is empty")
    return lines[0]
