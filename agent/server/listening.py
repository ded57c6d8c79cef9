"""Listening: where a server can be reached, and why it may not listen there. Opens no socket that stays open."""

import errno
import ipaddress
import socket

from agent.errors import AgentError, UsageError
from agent.server.tls import lan_addresses

_PRIVILEGED = 1024


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def addresses(host: str, port: int, scheme: str) -> list[str]:
    """URLs under which a server is reached that listens at `host`; the one for this machine first."""
    if host not in ("", "0.0.0.0", "::"):
        return [f"{scheme}://{_bracketed(host)}:{port}"]
    # "::" takes IPv6 alone: asyncio opens one socket for each family.
    this = ["::1"] if host == "::" else ["127.0.0.1"]
    others = [address for address in lan_addresses() if host == "" or (":" in address) == (host == "::")]
    return [f"{scheme}://{_bracketed(name)}:{port}" for name in (*this, *others)]


def refused_to_listen(host: str, port: int, error: OSError) -> AgentError:
    """What to tell the user when the system does not let us listen."""
    if isinstance(error, socket.gaierror):
        return UsageError(f"--host {host}: no machine is called that; give an address of this one, such as 127.0.0.1")
    match error.errno:
        case errno.EADDRINUSE:
            return UsageError(f"port {port} is taken; end what listens there, or choose another with --port")
        case errno.EADDRNOTAVAIL:
            return UsageError(f"--host {host} is no address of this machine; 0.0.0.0 listens on all of them")
        case errno.EACCES if port < _PRIVILEGED:
            return UsageError(f"port {port} is for the system's own servers; choose one from {_PRIVILEGED} up")
        case _:
            return UsageError(f"cannot listen on {host} port {port}: {error.strerror or error}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
