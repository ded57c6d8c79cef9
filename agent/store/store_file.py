"""Store file: the file that sessions are stored in, opened: for one process, with the tables that they need.

Receives a path, gives a connection. Moves a damaged file aside, says clearly when it is another program's or another
version's, and puts what SQLite complains of into words. Knows nothing of what the tables hold.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from agent.errors import StoreError, one_line

SCHEMA = 1
_APPLICATION = 0x4E6F656D  # "Noem"
_LOG_PAGES = 8192
"""32 MiB: the log is moved while somebody waits"""
_TABLES = """
CREATE TABLE sessions (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    token BLOB NOT NULL UNIQUE,
    touched REAL NOT NULL,
    audio_samples INTEGER NOT NULL DEFAULT 0,
    client_events INTEGER NOT NULL DEFAULT 0,
    core_messages INTEGER NOT NULL DEFAULT 0,
    input_bytes INTEGER NOT NULL DEFAULT 0,
    message_bytes INTEGER NOT NULL DEFAULT 0,
    last_message INTEGER NOT NULL DEFAULT 0,
    last_dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE checkpoints (
    session INTEGER PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    state BLOB NOT NULL,
    messages INTEGER NOT NULL
);
CREATE TABLE inputs (
    number INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    line TEXT NOT NULL,
    sound BLOB NOT NULL
);
CREATE INDEX inputs_of_session ON inputs (session, number);
CREATE TABLE messages (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    bytes_by_then INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (session, number)
);
"""


def opened_file(path: Path, warn: Callable[[str], None]) -> sqlite3.Connection:
    """Opens or makes a database; a damaged one is moved aside.

    Raises:
        StoreError: another process has it open, another program or version made it, or the place takes no file.
    """
    try:
        try:
            return _connect(path)
        except sqlite3.DatabaseError as error:
            if not _is_damaged(error):
                raise
            aside = _move_aside(path)
            warn(f"{path}: damaged ({error}); moved to {aside}. Sessions that it held cannot be resumed")
            return _connect(path)
    except sqlite3.Error as error:
        raise store_error(path, error) from error
    except OSError as error:
        raise StoreError(f"sessions cannot be kept: {one_line(error)}") from error


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """What SQLite says, in words that tell what to do."""
    reasons = {
        sqlite3.SQLITE_FULL: "the disk is full; make room or choose another place",
        sqlite3.SQLITE_IOERR: "the disk does not read or write it; choose another place",
        sqlite3.SQLITE_BUSY: "another process has it open; give each a place of its own (NOEMA_STORE)",
        sqlite3.SQLITE_READONLY: "it cannot be written; choose another place or change its permissions",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened; choose another place or change its permissions",
        sqlite3.SQLITE_CORRUPT: "damaged; the next start moves it aside",
        sqlite3.SQLITE_NOTADB: "damaged; the next start moves it aside",
    }
    reason = reasons.get(_code(error), str(error))
    return StoreError(f"sessions cannot be kept: {path}: {reason}")


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # people's voices; its log gets the same mode
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # a second process learns at once that it is one
        _check_owner(connection, path)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
        connection.execute("PRAGMA foreign_keys = ON")
        _check_health(connection)
        _make_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    application, version, tables = (
        connection.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if tables and application != _APPLICATION:
        raise StoreError(f"{path}: another program's database; choose another place (NOEMA_STORE)")
    if tables and version != SCHEMA:
        raise StoreError(
            f"{path}: made by another version (schema {version}, this one has {SCHEMA}); delete it, which forgets"
            " the sessions in it, or choose another place (NOEMA_STORE)"
        )


def _check_health(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _make_tables(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return
    connection.executescript(
        f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {SCHEMA}; COMMIT;"
    )


def _is_damaged(error: sqlite3.Error) -> bool:
    return _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _code(error: sqlite3.Error) -> int:
    """Without the part that tells details."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _move_aside(path: Path) -> Path:
    """One is kept: voices are not collected."""
    aside = path.with_name(path.name + ".damaged")
    for suffix in ("", "-wal"):
        source, target = Path(f"{path}{suffix}"), Path(f"{aside}{suffix}")
        target.unlink(missing_ok=True)
        if source.exists():
            source.rename(target)
    return aside
