"""A process that stores sessions and says what it has stored, until it is killed: `python -m … PATH SEED`."""

import asyncio
import os
import random
import sys
from pathlib import Path

from agent.core.stored_session import Batch, Checkpoint, ClientPosition, Row
from agent.store.session_store import SessionStore

SESSIONS = 4


async def session(store: SessionStore, name: str, rng: random.Random) -> None:
    """Batches without end: one item and one message each, the number in both; now and then a checkpoint."""
    await store.create(name, name.encode())
    number = 0
    while True:
        checkpoint = Checkpoint(str(number).encode(), number) if number == 0 or rng.random() < 0.05 else None
        number += 1
        row = Row(f'{{"number":{number}}}', os.urandom(rng.randrange(20_000)))
        message = (number, f"{number} " + "x" * rng.randrange(5_000))
        await store.append(name, Batch((row,), (message,), ClientPosition(number, number), number, checkpoint))
        os.write(1, f"{name} {number}\n".encode())


async def main(path: Path, seed: int) -> None:
    """Runs until it is killed."""
    async with SessionStore(path, warn=sys.exit) as store, asyncio.TaskGroup() as tasks:
        for number in range(SESSIONS):
            tasks.create_task(session(store, f"session-{number}", random.Random(f"{seed} {number}")))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
