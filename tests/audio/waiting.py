"""Waiting for what tells nobody when it happens: processes that end, sound that is heard."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return as soon as the condition holds; TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a device or a process sets no event
            await asyncio.sleep(0.01)
