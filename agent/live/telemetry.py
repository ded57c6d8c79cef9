"""Telemetry: what the server counts and measures, as Prometheus reads it. Knows nothing of connections.

A registry of its own: several servers in one process do not mix, and nothing is there that is not listed here.
"""

import asyncio
import resource
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from agent.metrics import peak_rss_mb

_PAGE_BYTES = resource.getpagesize()
_LAG_EVERY_S = 0.02
_STAGE_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 5)


class Telemetry:
    """Counters, gauges and histograms of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.connections = Counter("noema_connections", "Websockets opened", registry=registry)
        self.closed = Counter("noema_closed", "Websockets closed, by why", ["reason"], registry=registry)
        self.refused = Counter("noema_refused", "Requests refused, by why", ["reason"], registry=registry)
        self.sessions = Counter("noema_sessions", "Sessions begun", registry=registry)
        self.resumed = Counter("noema_resumed", "Sessions taken up again by their client", registry=registry)
        self.messages = Counter("noema_messages", "Messages of clients", registry=registry)
        self.mistakes = Counter("noema_mistakes", "Messages of clients that made no sense", registry=registry)
        self.turns = Counter("noema_turns", "Turns that ended, by how", ["status"], registry=registry)
        self.speculations = Counter(
            "noema_speculations", "Replies begun at a pause, by whether they were used", ["used"], registry=registry
        )
        self.stages = Histogram(
            "noema_stage_seconds",
            "What a stage of a reply took; first_audio: from the end of the turn",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.loop_lag = Histogram(
            "noema_loop_lag_seconds", "How late the event loop wakes up", buckets=_LAG_BUCKETS, registry=registry
        )
        self.watch("noema_resident_memory_bytes", "Memory that this process holds", resident_bytes)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A gauge that is asked for its value whenever somebody looks."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def page(self) -> tuple[bytes, str]:
        """Everything, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    async def watch_loop(self) -> None:
        """Measures how late the loop wakes up, until cancelled."""
        while True:
            start = time.perf_counter()
            await asyncio.sleep(_LAG_EVERY_S)
            self.loop_lag.observe(max(0.0, time.perf_counter() - start - _LAG_EVERY_S))


def resident_bytes() -> float:
    """Memory that this process holds; where the system does not say, the most it ever held."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return float(int(pages) * _PAGE_BYTES)
    except (OSError, ValueError, IndexError):
        return peak_rss_mb() * 1024 * 1024
