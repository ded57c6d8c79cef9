"""Memory: a server that runs for weeks keeps what it needs and little else. Knows nothing of sessions.

Sessions are circles of objects that only the garbage collector finds, and what they and the model free lies between
what stays. glibc keeps that, for each thread apart; here it is told not to. Without this, 500 turns that follow the
first fifty take 10 % more memory, with it 4 (`python -m scripts.bench soak`). Elsewhere than on glibc, only Python's
part is done.
"""

import asyncio
import ctypes
import gc
import sys

EVERY_S = 5.0
_MAPPED_FROM = 128 * 1024
"""Bytes: what is larger is a mapping of its own, and the system's again as soon as it is freed"""
_ARENAS = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt(3)


def keep_little() -> None:
    """Has the heap give back what is freed. To be called before there are threads."""
    if not sys.platform.startswith("linux"):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for parameter, value in (
            (_TRIM_THRESHOLD, _MAPPED_FROM),
            (_MMAP_THRESHOLD, _MAPPED_FROM),
            (_ARENA_MAX, _ARENAS),
        ):
            mallopt(parameter, value)


async def tidy_up() -> None:
    """Collects what sessions leave, now and then, until it is cancelled.

    What has been loaded by now stays; it is not looked at, which makes a collection a matter of milliseconds.
    """
    from lcm.space.memory import return_memory

    gc.collect()
    gc.freeze()
    try:
        while True:
            await asyncio.sleep(EVERY_S)
            gc.collect()
            await asyncio.to_thread(return_memory)
    finally:
        gc.unfreeze()
