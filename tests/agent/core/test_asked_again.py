"""A session with real models, cut off in the middle of a reply: the rest of the reply is all that comes."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from agent.config import AgentConfig, ThinkerConfig
from agent.core.events import DomainEvent, ReplyAudio
from agent.core.inputs import Input, Result, TypedText, WorkFailed
from agent.core.kept_core import KeptCore, restored
from agent.core.stored_session import ClientPosition, StoredSession
from agent.core.turn import TurnMachine
from agent.core.turn_state import Step
from agent.opening import Opened, opened
from agent.order import ArrivalOrder
from agent.session import run_session

TEXTS = ("The cat is hungry. Where is the station?", "Good morning.")


class CutOff(Exception):
    """The process ends here."""


class Watched:
    """A kept core, what came of it, and the result after which it is cut off."""

    def __init__(self, kept: KeptCore, results: int | None = None) -> None:
        self.kept = kept
        self.left = results
        self.events: list[DomainEvent] = []
        self.results: list[str] = []
        self.texts = 0

    @property
    def ended(self) -> bool:
        return self.kept.ended

    @property
    def sample(self) -> int:
        return self.kept.sample

    def take(self, item: Input) -> list[Step]:
        steps = self.kept.take(item)
        self.events += [event for step in steps for event in step.events]
        self.texts += isinstance(item, TypedText)
        if isinstance(item, Result):
            assert not isinstance(item, WorkFailed)
            self.results.append(type(item).__name__)
            if len(self.results) == self.left:
                raise CutOff
        return steps

    def told(self) -> dict[int, Any]:
        """Of each turn, all that a client gets of it: kinds in order, words, sound."""
        turns: dict[int, Any] = {}
        for event in self.events:
            turn, kind = getattr(event, "turn", 0), type(event).__name__
            of_turn = turns.setdefault(turn, {"words": [], "sound": [], "kinds": []})
            of_turn["words"] += [text] if (text := getattr(event, "text", None)) is not None else []
            of_turn["sound"] += [event.samples] if isinstance(event, ReplyAudio) else []
            of_turn["kinds"].append(kind)
        for of_turn in turns.values():
            of_turn["sound"] = np.concatenate([np.zeros(0, np.float32), *of_turn["sound"]]).tobytes()
            of_turn["kinds"].sort()  # a reply's words and the sound of those before come as they are made
            of_turn["words"].sort()
        return turns


@pytest_asyncio.fixture
async def there(small_bundle: Path) -> AsyncGenerator[Opened, None]:
    config = AgentConfig(bundle=str(small_bundle), device="cpu", thinker=ThinkerConfig(name="lcm"))
    async with opened(config, ["converse"], spoken=True) as running:
        yield running


async def typed(*texts: str) -> AsyncGenerator[Any, None]:
    for text in texts:
        yield TypedText(0, text)


async def converse(there: Opened, core: Watched, *texts: str) -> None:
    order = ArrivalOrder(lambda: 0)
    await run_session(typed(*texts), order, core, there.parts(), [], core.kept.outstanding)


def begun(there: Opened) -> KeptCore:
    kept = KeptCore(TurnMachine(there.turn_options(["eng"], "fra")), str)
    kept.begin()
    return kept


def as_stored(kept: KeptCore) -> StoredSession:
    batch = kept.batch([], 0, ClientPosition())
    assert batch.checkpoint is not None
    return StoredSession("one", batch.checkpoint, batch.rows, batch.position, 0, 0)


async def test_a_reply_that_was_cut_off_goes_on_where_it_was(there: Opened) -> None:
    whole = Watched(begun(there))
    await converse(there, whole, *TEXTS)
    half_given = 0
    for results in range(1, len(whole.results), len(whole.results) // 5):
        cut = Watched(begun(there), results)
        with pytest.raises(CutOff):
            await converse(there, cut, *TEXTS)
        back = Watched(restored(as_stored(cut.kept), str, str).core)
        half_given += any(again.answered for again in back.kept.outstanding)
        back.events += cut.events
        still_to_type = TEXTS[cut.texts :]
        await converse(there, back, *still_to_type)
        assert back.told() == whole.told()
    assert half_given
