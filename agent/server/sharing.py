"""Sharing: the link by which others listen to a session, and the same as a QR code. Headers in, an offer out. Pure.

The link's secrets stand in its fragment, which browsers keep to themselves. It names the server as the session's owner
reached it; what only works on this machine is exchanged for an address that others on the network can use, if there
is one.
"""

import io
from urllib.parse import urlencode, urlsplit

import segno
from websockets.datastructures import Headers

from agent.config import ServerConfig
from agent.realtime.session_object import ListenersOffer
from agent.server.gate import Connection
from agent.server.listening import addresses

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MASK = 3
"""Which of the eight patterns a code is covered with. The best of them takes five times as long to find"""


def listeners_offer(session_id: str, token: str, base: str) -> ListenersOffer:
    """What the owner of a session passes on.

    Args:
        session_id: which session.
        token: for listeners of that session, nobody else.
        base: the server, as `public_base` gives it.
    """
    url = f"{base}/listen#{urlencode({'session': session_id, 'token': token})}"
    return ListenersOffer(token=token, url=url, qr_svg=qr_svg(url))


def qr_svg(text: str) -> str:
    """A text as a QR code."""
    code = segno.make_qr(text, error="l", mask=_MASK, boost_error=False)
    drawn = io.BytesIO()
    code.save(drawn, kind="svg", xmldecl=False, border=2, omitsize=True)
    return drawn.getvalue().decode("ascii").strip()


def base_of(connection: Connection, config: ServerConfig) -> str:
    """By which URL others reach the server that a connection was made to."""
    assert connection.request is not None, "the handshake is done"
    port = int(connection.local_address[1])
    secure = config.tls is not None
    known = addresses(config.host, port, "https" if secure else "http")
    return public_base(connection.request.headers, known, secure=secure)


def public_base(headers: Headers, addresses: list[str], *, secure: bool) -> str:
    """By which URL others reach the server.

    Args:
        headers: of the owner's request.
        addresses: URLs under which the server listens; the one for this machine first.
        secure: whether the server itself speaks TLS; a proxy before it may.
    """
    host = headers.get_all("Host")[0] if headers.get_all("Host") else ""
    name = urlsplit(f"//{host}").hostname
    if not host or name in _LOOPBACK:
        return addresses[1] if len(addresses) > 1 else addresses[0]
    origins = headers.get_all("Origin")
    if origins and urlsplit(origins[0]).netloc == host:
        return origins[0]  # the owner's page came from here: it knows whether there is TLS
    return f"{'https' if secure else 'http'}://{host}"
