"""`noema serve` in a process of its own, for benchmarks and for the fuzzer: real sockets, its own cores and memory.

Receives settings; gives where it is to be reached, what it says of itself (/metrics, its log) and what the system
says of it (CPU, memory). Knows nothing of what is sent to it.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

READY_S = 60.0
END_S = 30.0
_EXPECTED = re.compile(r" INFO |^Noema serves on |^Realtime clients: |^Ctrl-C ends\.|^\s*$")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that is ready."""

    process: "subprocess.Popen[bytes]"
    address: str
    """host:port"""
    log: Path

    @property
    def realtime(self) -> str:
        """URL for Realtime clients."""
        return f"ws://{self.address}/v1/realtime"

    def cpu_s(self) -> float:
        """What it and its children have computed so far."""
        return sum(_cpu_s(Path(f"/proc/{pid}/stat")) for pid in self._family())

    def loop_cpu_s(self) -> float:
        """What the thread of its event loop has computed so far."""
        return _cpu_s(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/stat"), own=True)

    def rss_mb(self) -> float:
        """Memory of the process, without that of its voice."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)

    def metrics(self) -> dict[str, float]:
        """What it counts; labels are part of the name, as Prometheus writes them."""
        return read_metrics(self.address)

    def complaints(self) -> list[str]:
        """What it logged that is neither its greeting nor an account of what happened."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if not _EXPECTED.search(line)]

    def _family(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]


def _cpu_s(stat: Path, *, own: bool = False) -> float:
    """User and system time of a process or thread; with that of its children that are gone, unless its own."""
    fields = stat.read_text().rpartition(")")[2].split()
    return float(sum(int(field) for field in fields[11 : 13 if own else 15]) / os.sysconf("SC_CLK_TCK"))


def read_metrics(address: str) -> dict[str, float]:
    """/metrics of a server at host:port."""
    with _DIRECT.open(f"http://{address}/metrics", timeout=10) as answer:
        return {name + labels: float(value) for name, labels, value in _SAMPLE.findall(answer.read().decode())}


@contextmanager
def serving(folder: Path, settings: Mapping[str, Any]) -> Iterator[ServerProcess]:
    """A server on a free port of loopback, its sessions and its log in a folder.

    Args:
        folder: of its own.
        settings: what differs from `configs/agent.yaml`.
    """
    config, log = folder / "agent.yaml", folder / "server.log"
    config.write_text(yaml.safe_dump(dict(settings)))
    port = _free_port()
    command = [sys.executable, "-m", "agent", "serve", "--config", str(config), "--port", str(port)]
    own = {
        "XDG_DATA_HOME": str(folder),
        "NOEMA_SESSIONS": str(folder / "sessions"),
        "NOEMA_STORE": str(folder / "store"),
    }
    environment = os.environ | own | {"NOEMA_TOKEN": ""}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            _await_ready(process, f"http://127.0.0.1:{port}/readyz", log)
            yield ServerProcess(process, f"127.0.0.1:{port}", log)
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _await_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with _DIRECT.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the server did not become ready: {log.read_text(errors='replace')[-2000:]}")
