"""Addresses on the web: which ones may be fetched from, and how they are shown. Opens none."""

import base64
import ipaddress
import urllib.request
from http.client import HTTPMessage
from typing import IO
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from agent.errors import FetchError, UsageError


def checked_address(url: str) -> SplitResult:
    """An address that may be fetched from: https, or this very machine.

    Raises:
        UsageError: any other.
    """
    try:
        address = urlsplit(url)
        usable = bool(address.hostname) and address.port != 0
        (address.hostname or "").encode("idna")
        told = f"{shown(address)}: give" if "://" in url else f"write {_completed(url)}:" if url else "give"
    except ValueError:
        raise UsageError("the address cannot be read; give one like https://mirror.example/SONAR/") from None
    if not usable or not (address.scheme == "https" or (address.scheme == "http" and is_loopback(address))):
        raise UsageError(f"{told} an https address (http only for this machine itself)")
    return address


def shown(address: SplitResult) -> str:
    """An address as it may be seen: without user, password, or a query, which may hold a key."""
    return urlunsplit((address.scheme, _place(address), address.path, "", ""))


def _completed(url: str) -> str:
    """`localhost:8000` → `http://localhost:8000`."""
    address = urlsplit(f"//{url}")
    return shown(address._replace(scheme="http" if is_loopback(address) else "https"))


def is_loopback(address: SplitResult) -> bool:
    """Whether it is this very machine's."""
    host = address.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def request_of(address: SplitResult, headers: dict[str, str]) -> urllib.request.Request:
    """A request; a user and password in the address go to that host only, not to where it may redirect."""
    request = urllib.request.Request(urlunsplit(address._replace(netloc=_place(address), fragment="")), headers=headers)
    if address.username is not None:
        pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    return request


def opener_of(address: SplitResult) -> urllib.request.OpenerDirector:
    """Through the user's proxies, but through none to this very machine."""
    direct = [urllib.request.ProxyHandler({})] if is_loopback(address) else []
    return urllib.request.build_opener(_Redirects(), *direct)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows from https to https only, and on this machine wherever it likes."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and not (is_loopback(old) and is_loopback(new)):
            fp.close()
            raise FetchError(f"{shown(old)} leads to {shown(new)}, which is not https; name another address (--from)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _place(address: SplitResult) -> str:
    return address.netloc.rpartition("@")[2]
