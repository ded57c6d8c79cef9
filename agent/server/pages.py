"""Pages: a path in, a file of `agent/web` out, with the headers that keep a browser safe. Knows nothing of sockets.

The files are few and small, and all are in memory: there is no way from a path to a file that is not among them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers

WEB = Path(__file__).parents[1] / "web"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
}
"""What every answer says"""


@dataclass(frozen=True, slots=True)
class Page:
    """What is sent for one file."""

    content: bytes
    type: str
    tag: str
    """Changes with the content"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of an HTTP response."""

    status: HTTPStatus
    headers: Mapping[str, str]
    body: bytes = b""


class Pages:
    """The files below a folder. `/` is `index.html`, and `/listen` is `listen.html`."""

    def __init__(self, folder: Path = WEB) -> None:
        self._pages: dict[str, Page] = {}
        for file in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if file.suffix in _TYPES and file.is_file() and not file.name.startswith("."):
                content = file.read_bytes()
                path = "/" + file.relative_to(folder).as_posix()
                tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
                self._pages[_shown(path)] = Page(content, _TYPES[file.suffix], tag)

    def __len__(self) -> int:
        return len(self._pages)

    def get(self, path: str, headers: Headers) -> Answer | None:
        """What answers a GET; None where there is no such page. A HEAD is answered with the same but its body."""
        page = self._pages.get(path)
        if page is None:
            return None
        known = {tag.strip().removeprefix("W/") for line in headers.get_all("If-None-Match") for tag in line.split(",")}
        said = {
            "ETag": page.tag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            **SAFE,
        }
        if page.tag in known or "*" in known:
            return Answer(HTTPStatus.NOT_MODIFIED, said)
        return Answer(HTTPStatus.OK, {"Content-Type": page.type, **said}, page.content)


def _shown(path: str) -> str:
    """The path by which a file is asked for."""
    if path.endswith("/index.html"):
        return path.removesuffix("index.html")
    return path.removesuffix(".html")
