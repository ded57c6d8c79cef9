"""Conversation: one session's concepts, read as they come, and what would follow, whenever somebody asks.

The stepping side of the engine. A conversation holds a state of fixed size, whatever its length: the window slides.
What was read stays read: a reply that was interrupted, or that was never said, is taken back, and what is new is read,
always in the same pieces, so that a conversation gives the same bits however it came about. Several conversations, of
different lengths, are read and continued in one pass. Knows nothing of text or sound.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from lcm.engine import Engine, NextConcept
from lcm.errors import ContextError
from lcm.models.sampler import Sampling
from lcm.models.state import REWINDABLE, LcmState
from lcm.models.turns import ROLE_AGENT, ROLE_NARRATOR, Turns

LONGEST_PIECE = 32
"""Concepts that `follow` reads at once; a power of two, and a ring with room for `REWINDABLE` has room for so many"""


@dataclass(slots=True)
class Conversation:
    """What one session has read."""

    state: LcmState
    concepts: list[Tensor] = field(default_factory=list)  # [C] the latest, on the CPU
    roles: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """of each in its turn"""
    forgotten: int = 0
    """concepts before these"""

    @classmethod
    def of(cls, engine: Engine) -> "Conversation":
        """An empty one, for one engine."""
        return cls(engine.model.start(1))

    def __len__(self) -> int:
        return self.forgotten + len(self.concepts)


def read(engine: Engine, conversations: Sequence[Conversation], said: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Read what was said in each: concepts [n, C] and roles [n], n ≥ 1.

    Gives the probability that the last of each ended its speaker's turn. What several hold is copied together and
    apart again each time, so that none keeps the others' memory: who goes on with the same ones at every step pays it.

    Raises:
        ContextError: as `Engine.predict`.
    """
    engine.check([concepts for concepts, _ in said], [roles for _, roles in said])
    if not said:
        return []
    counts = torch.tensor([len(concepts) for concepts, _ in said])
    width = int(counts.max())
    concepts = torch.zeros(len(said), width, engine.dim)
    roles = torch.zeros(len(said), width, dtype=torch.int64)
    places = torch.zeros(len(said), width, dtype=torch.int64)
    for row, (conversation, (new, told)) in enumerate(zip(conversations, said, strict=True)):
        concepts[row, : len(new)], roles[row, : len(new)] = new.float(), torch.as_tensor(told)
        places[row, : len(new)] = _places(conversation, torch.as_tensor(told))
    state = LcmState.joined([conversation.state for conversation in conversations])
    with torch.inference_mode():
        stops = engine.model.read(
            concepts.to(engine.device), Turns(roles, places).to(engine.device), counts.to(engine.device), state
        )
    for row, (conversation, (new, told)) in enumerate(zip(conversations, said, strict=True)):
        conversation.state = state.alone(row, len(conversation) + len(new))
        conversation.places += places[row, : len(new)].tolist()
        _remember(conversation, engine.context, new, torch.as_tensor(told))
    return [float(p) for p in stops.sigmoid()]


def follow(engine: Engine, conversation: Conversation, concepts: Tensor, roles: Tensor) -> float | None:
    """Read whatever of the whole conversation so far (concepts [T, C] and roles [T]) was not read yet.

    What was read and is not in it any more is taken back. If nothing else reads the conversation, it is bit for bit
    what it would be had all of it been read now: it is read in pieces that depend on its length alone, and a piece that
    has grown is read again. Gives the probability that the last concept ended its turn; None where nothing is new.

    Raises:
        ContextError: as `Engine.predict`.
    """
    engine.check([concepts], [roles])
    shared = _shared(conversation, concepts, roles)
    if shared == len(conversation) == len(concepts):
        return None
    ends = list(_ends(len(concepts)))
    known = set(_ends(len(conversation)))
    # The last one is read again where it was read: what follows is drawn from it.
    start = max((end for end in ends[:-1] if end <= shared and end in known), default=0)
    if not _taken_back(conversation, start):
        start = 0
        fresh = Conversation.of(engine)
        for name in Conversation.__slots__:
            setattr(conversation, name, getattr(fresh, name))
    ended = 0.0
    for begin, end in pairwise([start, *(end for end in ends if end > start)]):
        [ended] = read(engine, [conversation], [(concepts[begin:end], roles[begin:end])])
    return ended


def _ends(length: int) -> Iterator[int]:
    """Where the pieces end in which so many concepts are read: as few powers of two as there can be, large ones first.

    One more concept makes one piece of the last ones, so that it costs one pass; and all of them take few.
    """
    end = 0
    while end < length:
        end += min(LONGEST_PIECE, 1 << (length - end).bit_length() - 1)
        yield end


def following(
    engine: Engine,
    conversations: Sequence[Conversation],
    seeds: Sequence[int] | None = None,
    *,
    sampling: Sampling | None = None,
    speaker: int | None = None,
) -> list[NextConcept]:
    """What `speaker` says next in each; nothing is read.

    By itself that is the agent, or the narrator where a narrator spoke last.

    Raises:
        ContextError: a conversation that has read nothing.
    """
    if any(not len(conversation) for conversation in conversations):
        raise ContextError("a conversation has read nothing yet; read what was said first")
    state = LcmState.joined([conversation.state for conversation in conversations])
    last = Turns(
        torch.tensor([conversation.roles[-1] for conversation in conversations]),
        torch.tensor([conversation.places[-1] for conversation in conversations]),
    )
    speakers = torch.where(last.roles == ROLE_NARRATOR, ROLE_NARRATOR, ROLE_AGENT)
    speakers = speakers if speaker is None else torch.full_like(speakers, speaker)
    return engine.drawn(state, last.followed_by(speakers), seeds, sampling)


def _places(conversation: Conversation, roles: Tensor) -> Tensor:
    if not conversation.roles:
        return Turns.of(roles[None]).places[0]
    before = torch.full((conversation.places[-1] + 1,), conversation.roles[-1])
    return Turns.of(torch.cat([before, roles])[None]).places[0, len(before) :]


def _remember(conversation: Conversation, window: int, new: Tensor, roles: Tensor) -> None:
    conversation.concepts += list(new.cpu())
    conversation.roles += roles.tolist()
    surplus = max(0, len(conversation.concepts) - window - REWINDABLE)
    del conversation.concepts[:surplus], conversation.roles[:surplus], conversation.places[:surplus]
    conversation.forgotten += surplus


def _shared(conversation: Conversation, concepts: Tensor, roles: Tensor) -> int:
    """How many concepts at its beginning the conversation has read, for all that is still known of it."""
    if len(concepts) <= conversation.forgotten:
        return 0
    shared = conversation.forgotten
    for known, role in zip(conversation.concepts, conversation.roles, strict=True):
        if shared == len(concepts) or int(roles[shared]) != role or not torch.equal(concepts[shared], known):
            break
        shared += 1
    return shared


def _taken_back(conversation: Conversation, length: int) -> bool:
    if length == len(conversation):
        return True
    kept = length - conversation.forgotten
    with torch.inference_mode():
        if kept < 1 or not conversation.state.rewind(length):
            return False
    del conversation.concepts[kept:], conversation.roles[kept:], conversation.places[kept:]
    return True
