"""Memory: what sessions leave behind in circles is collected, and the heap can be told to keep little."""

import asyncio
import gc
import subprocess
import sys
import weakref

import pytest

from agent.server import memory

HOLDS_LITTLE = """
import sys
from agent.server.memory import keep_little
keep_little()
pages = lambda: int(open("/proc/self/statm").read().split()[1])
many = [bytearray(b"x" * 200_000) for _ in range(200)]
between = [object() for _ in range(1000)]
held = pages()
del many
print((held - pages()) * 4096)
"""


class Circle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


async def test_circles_are_collected_although_the_collector_is_slow_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY_S", 0.01)
    gc.disable()
    tidying = asyncio.create_task(memory.tidy_up())
    try:
        await asyncio.sleep(0)  # what is there by now is not looked at
        collected = asyncio.Event()
        circle = weakref.ref(Circle(), lambda gone: collected.set())
        async with asyncio.timeout(10):
            await collected.wait()
        assert circle() is None
    finally:
        gc.enable()
        tidying.cancel()
        await asyncio.wait([tidying])
    assert gc.get_freeze_count() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is told, which is Linux's")
def test_what_is_freed_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", HOLDS_LITTLE], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 30_000_000
