"""Addresses that a user gives: which are fetched from, and how they are shown."""

import pytest

from agent.addresses import checked_address, shown
from agent.errors import UsageError


@pytest.mark.parametrize(
    "url", ["http://mirror.example/x", "ftp://mirror.example/x", "file:///etc/passwd", "mirror.example", "https://", ""]
)
def test_only_https_is_fetched_from(url: str) -> None:
    with pytest.raises(UsageError, match="give an https address"):
        checked_address(url)


@pytest.mark.parametrize("url", ["https://mirror.example:x/", "https://[1/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        checked_address(url)


def test_this_machine_may_do_without_https() -> None:
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80"):
        assert shown(checked_address(f"http://{host}/x?key=1")) == f"http://{host}/x"
