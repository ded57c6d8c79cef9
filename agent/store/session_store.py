"""Session store: sessions on disk, so that a client finds its own again after a cut, a crash or a restart.

Receives batches of what happened, returns when they are committed: only then is anything of them sent. One
thread owns the database; what all sessions ask for while it writes goes into its next transaction. When the
disk refuses, whoever asked gets a `StoreError`, and the others do not notice. Knows nothing of clients, wires
and what is in the batches.

Tokens are random; the store knows their hashes only.
"""

import asyncio
import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.core.stored_session import Batch, StoredSession
from agent.data_folder import kept_at
from agent.errors import StoreError
from agent.store.store_database import StoreDatabase, StoreLimits, open_database

_LINE = 256
"""Operations that may wait; whoever comes later waits outside"""
_FORGOTTEN_AT_ONCE = 4
_CLOSING_S = 10.0
Result = TypeVar("Result")


def store_path() -> Path:
    """Where sessions that can be resumed are kept: NOEMA_STORE, or the user's data folder."""
    return kept_at("NOEMA_STORE", "resume.db")


def new_token() -> str:
    """What opens one session again: 128 random bits, in a form that no command line takes for an option."""
    return secrets.token_hex(16)


def token_hash(token: str) -> bytes:
    """What the store keeps of it. A hash without salt is enough for what nobody can guess."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


@dataclass(slots=True)
class _Operation:
    """Something to be done in a transaction, and who waits for it."""

    run: Callable[[StoreDatabase], Any]
    done: asyncio.Future[Any]


class SessionStore:
    """The store of one process. Cancelling a call is safe: it is done or not done, never in part."""

    def __init__(
        self,
        path: Path,
        limits: StoreLimits | None = None,
        *,
        warn: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._limits = limits or StoreLimits()
        self._warn = warn
        self._now = now
        self._changed = threading.Condition()
        self._line: deque[_Operation] = deque()
        self._room = asyncio.Semaphore(_LINE)
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="noema-store", daemon=True)

    async def __aenter__(self) -> "SessionStore":
        """Opens the database.

        Raises:
            StoreError: it cannot be opened; the message says what to do.
        """
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[list[str]] = self._loop.create_future()
        self._thread.start()
        for warning in await self._opened:
            self._warn(warning)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Does what still waits, and closes."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, _CLOSING_S)

    async def create(self, session_id: str, hashed_token: bytes) -> None:
        """A session begins. It can be loaded once a batch with a checkpoint has been appended."""
        await self._do(lambda database: database.create(session_id, hashed_token))

    async def append(self, session_id: str, batch: Batch) -> None:
        """Adds what happened. When this returns, the batch's messages may be sent.

        Raises:
            StoreError: the disk refuses, or the session is gone or too long. It cannot be resumed from here on.
        """
        await self._do(lambda database: database.append(session_id, batch))

    async def load(self, session_id: str) -> StoredSession | None:
        """A session as it was stored last; None when it is not there."""
        return await self._do(lambda database: database.load(session_id))

    async def find(self, token: str) -> str | None:
        """The session that a token opens."""
        hashed = token_hash(token)
        return await self._do(lambda database: database.find(hashed))

    async def messages_after(self, session_id: str, number: int) -> list[tuple[int, str]]:
        """The messages, each with its number, that follow the one of this number.

        Raises:
            StoreError: some of them have been dropped, for age or size.
        """
        return await self._do(lambda database: database.messages_after(session_id, number))

    async def touch(self, session_ids: Sequence[str]) -> None:
        """These sessions are in use, though nothing is stored."""
        await self._do(lambda database: database.touch(session_ids))

    async def delete(self, session_id: str) -> None:
        """A session is over, or is not to be kept any more."""
        await self._do(lambda database: database.delete(session_id))

    async def prune(self, keep_s: float, max_bytes: int) -> list[str]:
        """Forgets sessions unused for `keep_s`, and the longest unused beyond `max_bytes`; says which."""
        gone: list[str] = []
        while True:  # a few at a time: others have their turn in between
            some = await self._do(lambda database: database.prune(keep_s, max_bytes, _FORGOTTEN_AT_ONCE))
            gone += some
            if len(some) < _FORGOTTEN_AT_ONCE:
                return gone

    async def _do(self, run: Callable[[StoreDatabase], Result]) -> Result:
        async with self._room:
            operation = _Operation(run, self._loop.create_future())
            with self._changed:
                if self._closing or not self._thread.is_alive():
                    raise StoreError(f"{self.path}: closed")
                self._line.append(operation)
                self._changed.notify()
            result: Result = await operation.done
            return result

    # On the store's own thread

    def _work(self) -> None:
        warnings: list[str] = []
        try:
            database = open_database(self.path, self._limits, self._now, warnings.append)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the store
            self._tell([(self._opened, None, error)])
            return
        self._tell([(self._opened, warnings, None)])
        while group := self._take():
            self._tell(_run_together(database, group))
            database.tidy()
        database.close()

    def _take(self) -> list[_Operation]:
        """All that wait; nothing when the store is being closed and nobody waits."""
        with self._changed:
            while not self._line and not self._closing:
                self._changed.wait()
            group = list(self._line)
            self._line.clear()
            return group

    def _tell(self, outcomes: "list[_Outcome]") -> None:
        try:
            self._loop.call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:  # the loop is gone, and with it everyone who waited
            return


_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


def _run_together(database: StoreDatabase, group: list[_Operation]) -> list[_Outcome]:
    """One transaction for all of them; where that fails, one for each, so that they fail or not by themselves."""
    try:
        with database.transaction():
            return [(operation.done, operation.run(database), None) for operation in group]
    except Exception as error:  # noqa: BLE001 - the boundary between sessions: one must not stop the others
        if len(group) == 1:
            return [(group[0].done, None, error)]
        return [outcome for operation in group for outcome in _run_together(database, [operation])]


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():  # whoever waited was cancelled
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
