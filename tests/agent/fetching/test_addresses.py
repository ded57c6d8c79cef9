"""Addresses that a user gives: which are fetched from, and how they are shown."""

import pytest

from agent.errors import UsageError
from agent.fetching.addresses import checked_address, shown


@pytest.mark.parametrize(
    "url", ["http://mirror.example/x", "ftp://mirror.example/x", "file:///etc/passwd", "https://", ""]
)
def test_only_https_is_fetched_from(url: str) -> None:
    with pytest.raises(UsageError, match="give an https address"):
        checked_address(url)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:80/x", "http://127.0.0.1:80/x"),
        ("mirror.example/SONAR", "https://mirror.example/SONAR"),
        ("me:secret@mirror.example", "https://mirror.example"),
    ],
)
def test_an_address_without_its_beginning_is_completed(url: str, whole: str) -> None:
    with pytest.raises(UsageError, match=f"^write {whole}: an https address") as raised:
        checked_address(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["https://mirror.example:x/", "https://[1/", "[1/", "https://mirror..example/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        checked_address(url)


def test_this_machine_may_do_without_https() -> None:
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80"):
        assert shown(checked_address(f"http://{host}/x?key=1")) == f"http://{host}/x"
