"""Housekeeping: what a server forgets in time, and what one before it left undone.

Kept sessions that nobody came back to and old recordings, each in a loop until it is cancelled; recordings that a
crash left unfinished. Knows nothing of connections.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from agent.errors import StoreError, one_line
from agent.live.live_session import House
from agent.recordings.recording import finalise_abandoned, sessions_folder, unfinished
from agent.recordings.retention import Retention, prune
from agent.store.session_store import SessionStore

_STORE_EVERY_S = 600.0
_RECORDINGS_EVERY_S = 3600.0
_log = logging.getLogger(__name__)


async def forget_sessions(house: House, store: SessionStore, in_use: Callable[[], list[str]]) -> None:
    """Forgets what has waited in the store for too long.

    Args:
        house: its settings hold.
        store: where sessions wait.
        in_use: sessions that are in memory.
    """
    while True:
        try:
            await store.touch(in_use())
            gone = await store.prune(house.config.keep_s, house.config.store_bytes)
        except StoreError as error:
            _log.warning("old sessions stay in the store: %s", one_line(error))
        else:
            if gone:
                _log.info("%d sessions that nobody came back to are forgotten", len(gone))
        await asyncio.sleep(_STORE_EVERY_S)


async def finalise_recordings() -> None:
    """Finalises what a crash left unfinished. Cancelling waits for the recording in hand, and not for the next."""
    try:
        for folder in await asyncio.to_thread(unfinished, sessions_folder()):
            await asyncio.to_thread(finalise_abandoned, folder)
    except OSError as error:
        _log.warning("unfinished recordings stay so: %s", one_line(error))


async def delete_recordings(house: House) -> None:
    """Deletes recordings of servers beyond what may stay: every hour, and whenever another begins."""
    config = house.there.config
    limits = Retention(config.recordings_days, config.recordings_bytes)
    while True:
        house.recording_began.clear()
        try:
            gone = await asyncio.to_thread(prune, sessions_folder(), limits)
        except OSError as error:
            _log.warning("old recordings stay: %s", one_line(error))
        else:
            if gone:
                _log.info("%d recordings deleted, from %s on; kept are: %s", len(gone), gone[0].name, limits)
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECORDINGS_EVERY_S):
                await house.recording_began.wait()
