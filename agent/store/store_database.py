"""Store database: what of sessions is kept, in SQLite; every call is part of the transaction around it.

Receives batches as `agent.core.stored_session` describes them, gives them back. Used on one thread; knows nothing of
threads, event loops and what the rows mean. The file itself is opened by `agent.store.store_file`.

WAL with synchronous=NORMAL: what was committed outlives a `kill -9` of this process. A power cut may take back
the last commits, as far as the last moment at which the log was moved into the database (every 2 MiB): the
database stays whole, but a client may then have seen events that the session does not know. What is forgotten is
overwritten in the database at once, in its log when that is written anew, at the latest when it is closed.
"""

import hmac
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.stored_session import Batch, Checkpoint, ClientPosition, Row, StoredSession
from agent.errors import StoreError
from agent.store.store_file import opened_file, store_error

_LOG_BYTES = 2 * 2**20
_PAGES_GIVEN_BACK = 4096
"""To the disk, 16 MiB, whenever sessions are pruned: others wait meanwhile"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What is kept of one session."""

    outbox_bytes: int = 16 * 2**20
    """Messages that a client may not have seen; more than 4 minutes of speech"""
    outbox_s: float = 600.0
    """Their age when the session was last in use: a client was away for less than that before anybody noticed"""
    input_bytes: int = 16 * 2**20
    """Items since the last checkpoint: many only if messages are not taken, for 8 minutes"""


class StoreDatabase:
    """An open database. Not safe for two threads."""

    def __init__(self, connection: sqlite3.Connection, path: Path, limits: StoreLimits, now: Callable[[], float]):
        self._connection = connection
        self._path = path
        self._limits = limits
        self._now = now
        self._written = 0
        """Bytes since the log was moved into the database, roughly"""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is called inside, or nothing of it.

        Raises:
            StoreError: the disk refuses, or the database is damaged. Nothing has changed.
        """
        try:
            self._run("BEGIN IMMEDIATE")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled it back already
                    self._run("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise store_error(self._path, error) from error

    def create(self, session_id: str, token_hash: bytes) -> None:
        """A session that nothing is known of yet; it can be loaded once a batch has brought its checkpoint."""
        self._run("INSERT INTO sessions (id, token, touched) VALUES (?, ?, ?)", session_id, token_hash, self._now())

    def append(self, session_id: str, batch: Batch) -> None:
        """Adds a batch.

        Raises:
            StoreError: there is no such session, or it takes more room than it may.
        """
        key, input_bytes, message_bytes = self._session(session_id, "key", "input_bytes", "message_bytes")
        if batch.checkpoint is not None:
            self._put_checkpoint(key, batch.checkpoint)
            input_bytes = 0
        input_bytes += sum(row.size for row in batch.rows)
        if input_bytes > self._limits.input_bytes:
            raise StoreError(f"session {session_id}: more came than is kept while a client does not take its messages")
        for row in batch.rows:
            self._run("INSERT INTO inputs (session, line, sound) VALUES (?, ?, ?)", key, row.line, row.sound)
        now = self._now()
        for number, text in batch.messages:
            message_bytes += len(text)
            self._run("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", key, number, now, message_bytes, text)
        position = batch.position
        self._run(
            "UPDATE sessions SET touched = ?, audio_samples = ?, client_events = ?, core_messages = ?,"
            " input_bytes = ?, message_bytes = ?, last_message = max(last_message, ?) WHERE key = ?",
            *(now, position.audio_samples, position.events, batch.core_messages),
            *(input_bytes, message_bytes, batch.messages[-1][0] if batch.messages else 0, key),
        )
        if batch.messages:
            self._trim(key, message_bytes, now)
        self._written += sum(row.size for row in batch.rows) + sum(len(text) for _, text in batch.messages)
        self._written += 0 if batch.checkpoint is None else len(batch.checkpoint.state)

    def load(self, session_id: str) -> StoredSession | None:
        """A session as it was stored; None when it is not there, or nothing of it yet."""
        found = self._row(
            "SELECT key, audio_samples, client_events, core_messages, last_message, state, messages"
            " FROM sessions JOIN checkpoints ON session = key WHERE id = ?",
            session_id,
        )
        if found is None:
            return None
        key, audio_samples, events, core_messages, last_message, state, messages = found
        return StoredSession(
            session_id,
            Checkpoint(state, messages),
            tuple(
                Row(*row) for row in self._run("SELECT line, sound FROM inputs WHERE session = ? ORDER BY number", key)
            ),
            ClientPosition(audio_samples, events),
            core_messages,
            last_message,
        )

    def find(self, token_hash: bytes) -> str | None:
        """The session that a token opens."""
        found = self._row("SELECT id, token FROM sessions WHERE token = ?", token_hash)
        # The index compares hashes, of which whoever guesses controls no prefix; this compares them in constant time.
        return found[0] if found is not None and hmac.compare_digest(found[1], token_hash) else None

    def messages_after(self, session_id: str, number: int) -> list[tuple[int, str]]:
        """What a client has not seen that has seen the message of this number.

        Raises:
            StoreError: there is no such session, or some of it has been dropped.
        """
        key, last_dropped = self._session(session_id, "key", "last_dropped")
        if number < last_dropped:
            raise StoreError(f"session {session_id}: what followed event {number} is not kept any more")
        return list(
            self._run("SELECT number, text FROM messages WHERE session = ? AND number > ? ORDER BY number", key, number)
        )

    def touch(self, session_ids: Sequence[str]) -> None:
        """These are in use."""
        for session_id in session_ids:
            self._run("UPDATE sessions SET touched = ? WHERE id = ?", self._now(), session_id)

    def delete(self, session_id: str) -> None:
        """Forgets a session."""
        self._run("DELETE FROM sessions WHERE id = ?", session_id)

    def prune(self, keep_s: float, max_bytes: int, at_most: int) -> list[str]:
        """Forgets sessions that nobody has used for `keep_s`, then the longest unused until the rest fits.

        No more than `at_most`, because others wait meanwhile; says which.
        """
        gone: list[str] = []
        oldest = self._run("SELECT id, touched FROM sessions ORDER BY touched LIMIT ?", at_most).fetchall()
        for session_id, touched in oldest:
            if touched >= self._now() - keep_s and self._used_bytes() <= max_bytes:
                break
            self.delete(session_id)
            gone.append(session_id)
        for session in self._run("SELECT key, message_bytes, touched FROM sessions").fetchall():
            self._trim(*session)
        for _ in range(min(self._one("PRAGMA freelist_count"), _PAGES_GIVEN_BACK)):
            self._run("PRAGMA incremental_vacuum(1)")  # more at once, sqlite3 would stop after the first
        return gone

    def tidy(self) -> None:
        """Moves the log into the database when there is much of it. That takes 20 ms: for when nobody waits."""
        if self._written >= _LOG_BYTES:
            self._written = 0
            try:
                self._run("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as error:  # whoever stores next gets it, too
                _log.debug("%s: %s", self._path, error)

    def close(self) -> None:
        """Moves the log into the database and closes it."""
        self._connection.close()

    def _put_checkpoint(self, key: int, checkpoint: Checkpoint) -> None:
        self._run("DELETE FROM inputs WHERE session = ?", key)
        self._run("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)", key, checkpoint.state, checkpoint.messages)

    def _trim(self, key: int, message_bytes: int, touched: float) -> None:
        """Drops the oldest messages beyond what is kept: they are the first, by age as by bytes."""
        query = "SELECT number, at, bytes_by_then FROM messages WHERE session = ? ORDER BY number"
        last = 0
        for number, at, bytes_by_then in self._run(query, key):
            if at >= touched - self._limits.outbox_s and (message_bytes - bytes_by_then <= self._limits.outbox_bytes):
                break
            last = number
        if last:
            self._run("DELETE FROM messages WHERE session = ? AND number <= ?", key, last)
            self._run("UPDATE sessions SET last_dropped = ? WHERE key = ?", last, key)

    def _used_bytes(self) -> int:
        pages, free, size = (self._one(f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _session(self, session_id: str, *columns: str) -> tuple[int, ...]:
        found = self._row(f"SELECT {', '.join(columns)} FROM sessions WHERE id = ?", session_id)
        if found is None:
            raise StoreError(f"session {session_id} is not kept any more")
        return found

    def _one(self, query: str) -> int:
        return int(self._run(query).fetchone()[0])

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._run(query, *values).fetchone()
        return found

    def _run(self, query: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(query, values)


def open_database(
    path: Path, limits: StoreLimits, now: Callable[[], float], warn: Callable[[str], None]
) -> StoreDatabase:
    """Opens or makes the database, as `store_file.opened_file` does."""
    return StoreDatabase(opened_file(path, warn), path, limits, now)
