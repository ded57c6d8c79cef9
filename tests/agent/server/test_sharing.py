"""The link that a session's owner shares: by which address others reach the server."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.datastructures import Headers

from agent.server.sharing import listeners_offer, public_base, qr_svg

HERE = "http://127.0.0.1:8765"
LAN = "http://192.0.2.7:8765"


@pytest.mark.parametrize(
    ("headers", "known", "base"),
    [
        ({"Host": "127.0.0.1:8765"}, [HERE], HERE),  # nobody else reaches it anyway
        ({"Host": "localhost:8765"}, [HERE, LAN], LAN),
        ({"Host": "192.0.2.9:8765"}, [HERE, LAN], "http://192.0.2.9:8765"),
        ({"Host": "talks.example.org", "Origin": "https://talks.example.org"}, [HERE], "https://talks.example.org"),
        ({"Host": "talks.example.org", "Origin": "https://other.example.org"}, [HERE], "http://talks.example.org"),
        ({}, [HERE, LAN], LAN),
    ],
)
def test_others_are_given_the_address_that_they_can_use(headers: dict[str, str], known: list[str], base: str) -> None:
    assert public_base(Headers(headers), known, secure=False) == base


def test_a_server_with_tls_says_so() -> None:
    assert public_base(Headers({"Host": "h:1"}), ["https://127.0.0.1:1"], secure=True) == "https://h:1"


def test_the_secrets_of_the_link_stay_in_its_fragment() -> None:
    offer = listeners_offer("sess_1", "t0ken-_", "https://h")
    link = urlsplit(offer.url)
    assert (link.scheme, link.netloc, link.path, link.query) == ("https", "h", "/listen", "")
    assert parse_qs(link.fragment) == {"session": ["sess_1"], "token": ["t0ken-_"]}


def test_the_code_is_a_picture_of_paths_that_grows_with_the_text() -> None:
    sizes = [float(re.findall(r'viewBox="0 0 (\d+) \1"', qr_svg("x" * length))[0]) for length in (20, 200)]
    assert sizes[0] < sizes[1]
    assert "<path" in qr_svg("x")
    assert "stroke" in qr_svg("x")
