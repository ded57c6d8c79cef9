"""Kept conversations: a session's concepts so far in, what the model says next out; what it has read stays read.

A reply, and the next one, read what is new and take back what was never said. What is said next is bit for bit what a
session would say that had read all of it at once: a reply that was begun early is the one that would have come anyway.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from agent.core.events import FloatArray

if TYPE_CHECKING:
    from lcm.conversation import Conversation
    from lcm.engine import Engine, NextConcept

KEPT_BYTES = 1 << 27
"""Of all that is kept; the session that spoke longest ago is the first to go, the latest stays"""


class KeptConversations:
    """The sessions that converse with one engine, by their number."""

    def __init__(self, engine: "Engine", most_bytes: int = KEPT_BYTES) -> None:
        self._engine = engine
        self._most_bytes = most_bytes
        self._kept: dict[int, Conversation] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def ahead(
        self, session: int, concepts: list[FloatArray], roles: list[int], limit: int, seed: int
    ) -> Iterator["NextConcept"]:
        """What comes next, again and again; the caller appends what it makes of each before it asks for another."""
        import torch

        from lcm.conversation import Conversation, follow, following
        from lcm.engine import STOP_PROBABILITY, step_seed

        conversation: Conversation | None = None
        for number in range(limit):
            if not concepts:
                return
            # Taken out, so that one whose reading fails is not kept.
            conversation = self._kept.pop(session, conversation) or Conversation.of(self._engine)
            follow(self._engine, conversation, torch.from_numpy(np.stack(concepts)), torch.tensor(roles))
            [ahead] = following(self._engine, [conversation], [step_seed(seed, number)])
            self._keep(session, conversation)
            if ahead.ends or (number and ahead.ended >= STOP_PROBABILITY):
                return
            yield ahead

    def forget(self, session: int) -> None:
        """It is over."""
        self._kept.pop(session, None)

    def _keep(self, session: int, conversation: "Conversation") -> None:
        self._kept[session] = conversation
        while len(self._kept) > 1 and len(self._kept) * conversation.state.nbytes > self._most_bytes:
            del self._kept[next(iter(self._kept))]
