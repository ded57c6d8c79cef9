"""Answers of a web server: what their heads say of a file. Knows nothing of where the file goes."""

import time
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.parse import SplitResult

from agent.errors import FetchError
from agent.fetching.addresses import opener_of, request_of
from agent.fetching.partial_file import Version


def version_of(headers: Message, total: int | None) -> Version:
    """Which content the server has; `total` bytes, if that is known."""
    return Version(headers.get("ETag", ""), headers.get("Last-Modified", ""), total)


def content_range(value: str) -> tuple[int | None, int | None]:
    """`bytes 5-9/10` → first byte and total."""
    extent, _, total = value.removeprefix("bytes ").partition("/")
    first = extent.partition("-")[0]
    return int(first) if first.isdecimal() else None, int(total) if total.isdecimal() else None


def asked_seconds(retry_after: str | None) -> float | None:
    """How long to wait: seconds, or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def announced_bytes(address: SplitResult, timeout_seconds: float = 10.0) -> int | None:
    """How long a file is, as the server says it without sending it; None where it does not say."""
    request = request_of(address, {"User-Agent": "noema", "Accept-Encoding": "identity"})
    request.method = "HEAD"
    try:
        with opener_of(address).open(request, timeout=timeout_seconds) as response:
            length: str = response.headers.get("Content-Length", "")
    except (OSError, HTTPException, FetchError):
        return None
    return int(length) if length.isdecimal() else None
