"""The session store: what is committed outlives everything but the disk, and who may open what."""

import asyncio
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from agent.core.stored_session import Batch, Checkpoint, ClientPosition, Row, StoredSession
from agent.errors import StoreError
from agent.store.session_store import SessionStore, new_token, store_path, token_hash
from agent.store.store_database import StoreLimits
from agent.store.store_file import SCHEMA

LIMITS = StoreLimits(outbox_bytes=1000, outbox_s=60, input_bytes=100_000)


class Clock:
    """Time as the store is told it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(path: Path, clock: Clock | None = None, limits: StoreLimits = LIMITS) -> SessionStore:
    return SessionStore(path, limits, warn=pytest.fail, now=clock or Clock())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "resume.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def store(path: Path, clock: Clock) -> AsyncGenerator[SessionStore, None]:
    async with opened(path, clock) as running:
        yield running


def content_of(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def batch(*numbers: int, rows: tuple[Row, ...] = (), checkpoint: bytes | None = None, size: int = 1) -> Batch:
    """Messages with these numbers."""
    return Batch(
        rows,
        tuple((number, "x" * size) for number in numbers),
        ClientPosition(7, 8),
        len(numbers),
        None if checkpoint is None else Checkpoint(checkpoint, 0),
    )


async def test_a_session_is_found_again_as_it_was(path: Path) -> None:
    token, rows = new_token(), (Row("a", b"\0\1"), Row("é 🙂"))
    async with opened(path) as store:
        await store.create("one", token_hash(token))
        assert await store.load("one") is None
        await store.append("one", batch(1, checkpoint=b"state"))
        await store.append("one", batch(2, 5, rows=rows))
    async with opened(path) as store:
        assert await store.find(token) == "one"
        expected = StoredSession("one", Checkpoint(b"state", 0), rows, ClientPosition(7, 8), 2, 5)
        assert await store.load("one") == expected
        assert await store.messages_after("one", 1) == [(2, "x"), (5, "x")]
        assert await store.messages_after("one", 4) == [(5, "x")]


async def test_a_checkpoint_takes_the_place_of_what_came_before(store: SessionStore) -> None:
    await store.create("one", b"1")
    await store.append("one", batch(1, checkpoint=b"old", rows=(Row("a"),)))
    await store.append("one", batch(2, rows=(Row("b"),)))
    await store.append("one", batch(3, checkpoint=b"new", rows=(Row("c"),)))
    loaded = await store.load("one")
    assert loaded is not None
    assert (loaded.checkpoint.state, loaded.rows) == (b"new", (Row("c"),))
    assert [number for number, _ in await store.messages_after("one", 0)] == [1, 2, 3]


async def test_a_token_opens_its_own_session_and_nothing_else_does(store: SessionStore, path: Path) -> None:
    tokens = [new_token() for _ in range(3)]
    for number, token in enumerate(tokens):
        await store.create(f"session {number}", token_hash(token))
    assert [await store.find(token) for token in tokens] == ["session 0", "session 1", "session 2"]
    for wrong in ("", tokens[0][:-1], tokens[0] + "A", token_hash(tokens[0]).hex(), "\ud800", "x" * 100_000):
        assert await store.find(wrong) is None
    kept = content_of(path) + content_of(Path(f"{path}-wal"))
    assert not any(token.encode() in kept for token in tokens)


async def test_the_outbox_is_bounded_in_bytes_and_says_what_it_dropped(store: SessionStore) -> None:
    await store.create("one", b"1")
    for number in range(1, 31):
        await store.append("one", batch(number, size=100))
    assert [number for number, _ in await store.messages_after("one", 20)] == list(range(21, 31))
    with pytest.raises(StoreError, match="not kept any more"):
        await store.messages_after("one", 5)


async def test_the_outbox_is_bounded_in_age(store: SessionStore, clock: Clock) -> None:
    await store.create("one", b"1")
    await store.append("one", batch(1))
    clock.now += 50
    await store.append("one", batch(2))
    clock.now += 20
    await store.prune(keep_s=1000, max_bytes=10**9)
    assert len(await store.messages_after("one", 0)) == 2  # its client may have been away since
    await store.touch(["one"])
    await store.prune(keep_s=1000, max_bytes=10**9)
    assert await store.messages_after("one", 1) == [(2, "x")]
    with pytest.raises(StoreError, match="not kept any more"):
        await store.messages_after("one", 0)


async def test_a_session_that_takes_too_much_room_is_refused_and_others_are_not(store: SessionStore) -> None:
    for name in ("long", "short"):
        await store.create(name, name.encode())
    large = Row("a", bytes(60_000))
    await store.append("long", batch(1, checkpoint=b"", rows=(large,)))
    outcomes = await asyncio.gather(
        store.append("long", batch(2, rows=(large,))),
        store.append("short", batch(1, checkpoint=b"", rows=(large,))),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], StoreError)
    assert outcomes[1] is None
    assert await store.messages_after("long", 1) == []
    await store.append("long", batch(2, checkpoint=b"", rows=(large,)))


async def test_what_is_unknown_is_said(store: SessionStore) -> None:
    with pytest.raises(StoreError, match="not kept"):
        await store.append("nobody", batch(1))
    with pytest.raises(StoreError, match="not kept"):
        await store.messages_after("nobody", 0)
    assert await store.load("nobody") is None
    await store.delete("nobody")


async def test_sessions_that_nobody_uses_are_forgotten(store: SessionStore, clock: Clock) -> None:
    for name in ("old", "touched", "new"):
        await store.create(name, name.encode())
        await store.append(name, batch(1, checkpoint=b""))
    clock.now += 100
    await store.touch(["touched"])
    await store.append("new", batch(2))
    assert await store.prune(keep_s=60, max_bytes=10**9) == ["old"]
    assert await store.load("old") is None
    assert await store.load("touched") is not None


async def test_the_longest_unused_give_way_when_room_is_short(store: SessionStore, clock: Clock) -> None:
    for number in range(9):
        await store.create(str(number), bytes([number]))
        await store.append(str(number), batch(1, checkpoint=b"", rows=(Row("a", bytes(90_000)),)))
        clock.now += 1
    assert await store.prune(keep_s=1000, max_bytes=450_000) == ["0", "1", "2", "3", "4"]


async def test_what_is_forgotten_leaves_the_file(path: Path) -> None:
    secret = b"somebody's voice" * 10_000
    async with opened(path, limits=StoreLimits()) as store:
        for name in ("one", "two"):
            await store.create(name, name.encode())
            await store.append(name, batch(1, checkpoint=b"", rows=(Row("a", secret),)))
        await store.append("one", batch(2, checkpoint=b""))
        await store.delete("two")
        await store.prune(1000, 10**9)
    assert b"voice" not in content_of(path)
    assert len(content_of(path)) < len(secret) * 4
    assert content_of(Path(f"{path}-wal")) == b""


async def test_only_its_user_may_read_it(store: SessionStore, path: Path) -> None:
    await store.create("one", b"1")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, Path(f"{path}-wal"))] == [0o600, 0o600]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_second_process_learns_that_it_is_one(store: SessionStore, path: Path) -> None:
    with pytest.raises(StoreError, match="another process"):
        async with opened(path):
            pytest.fail("opened twice")
    await store.create("one", b"1")


async def test_another_version_or_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "newer.db"):
        pass
    connection = sqlite3.connect(tmp_path / "newer.db")
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE passwords (name)")
    connection.close()
    for name, told in (("newer.db", "another version"), ("other.db", "another program")):
        content = (tmp_path / name).read_bytes()
        with pytest.raises(StoreError, match=told):
            async with opened(tmp_path / name):
                pytest.fail("opened")
        assert (tmp_path / name).read_bytes() == content


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def filled(path: Path) -> None:
    async with opened(path) as store:
        await store.create("one", b"1")
        await store.append("one", batch(1, checkpoint=b"", rows=(Row("a", bytes(90_000)),)))


@pytest.mark.parametrize("damage", ["no database", "a page", "cut short"])
async def test_a_damaged_database_is_moved_aside(path: Path, damage: str) -> None:
    await filled(path)
    content = content_of(path)
    changed = {
        "no database": b"x" * len(content),
        "a page": content[:4096] + b"x" * 8192 + content[12288:],
        "cut short": content[: len(content) // 2],
    }
    write(path, changed[damage])
    warnings: list[str] = []
    async with SessionStore(path, warn=warnings.append) as store:
        assert await store.load("one") is None
        await store.create("one", b"1")
    assert len(warnings) == 1
    assert "damaged" in warnings[0]
    assert content_of(Path(f"{path}.damaged"))[4096:] == changed[damage][4096:]


async def test_a_place_that_takes_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "resume.db", tmp_path):
        with pytest.raises(StoreError, match="sessions cannot be kept"):
            async with opened(place):
                pytest.fail("opened")


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_an_error_that_the_store_survives(store: SessionStore, path: Path) -> None:
    await store.create("one", b"1")
    await store.append("one", batch(1, checkpoint=b"state"))
    with full_disk(len(content_of(Path(f"{path}-wal"))) + 10_000):
        with pytest.raises(StoreError, match="disk"):
            await store.append("one", batch(2, rows=(Row("a", bytes(90_000)),)))
        assert await store.messages_after("one", 0) == [(1, "x")]
    await store.append("one", batch(2, rows=(Row("a", bytes(90_000)),)))
    assert await store.messages_after("one", 1) == [(2, "x")]


async def test_closing_does_what_still_waits(path: Path) -> None:
    async with opened(path) as store:
        await store.create("one", b"1")
        tasks = [asyncio.create_task(store.append("one", batch(number))) for number in range(1, 100)]
        await asyncio.sleep(0)  # all of them wait now
    await asyncio.gather(*tasks)
    with pytest.raises(StoreError, match="closed"):
        await store.load("one")
    async with opened(path) as again:
        assert len(await again.messages_after("one", 0)) == 99


async def test_whoever_is_cancelled_harms_nobody(store: SessionStore) -> None:
    await store.create("one", b"1")
    tasks = [asyncio.create_task(store.append("one", batch(number))) for number in range(1, 300)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    done = [number for number, outcome in enumerate(outcomes, start=1) if outcome is None]
    stored = [number for number, _ in await store.messages_after("one", 0)]
    assert set(done) <= set(stored)
    assert len(done) >= len(tasks) // 2


def killed(path: Path, seed: int) -> dict[str, int]:
    """Runs sessions and kills them at some moment: the number of the last batch that each was told is stored."""
    command = [sys.executable, "-m", "tests.agent.crashing_store", str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(20 + 37 * seed)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    whole = [line.split() for line in said if line.endswith("\n")]
    return {name: int(number) for name, number in whole}


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_committed_outlives_a_kill(path: Path, seed: int) -> None:
    committed = killed(path, seed)
    async with opened(path, limits=StoreLimits()) as store:
        for name, number in committed.items():
            loaded = await store.load(name)
            assert loaded is not None
            first, last = int(loaded.checkpoint.state), loaded.last_message
            assert number <= last <= number + 1
            assert [row.line for row in loaded.rows] == [f'{{"number":{n}}}' for n in range(first + 1, last + 1)]
            assert loaded.position == ClientPosition(last, last)
            messages = await store.messages_after(name, 0)
            assert [int(text.split()[0]) for _, text in messages] == list(range(1, last + 1))


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOEMA_STORE", str(tmp_path / "here.db"))
    assert store_path() == tmp_path / "here.db"
    monkeypatch.delenv("NOEMA_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store_path() == tmp_path / "noema" / "resume.db"
