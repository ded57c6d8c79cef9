"""State: what a model remembers of the concepts so far, one row per conversation. Passed in, never hidden.

A ring, allocated once: a row holds its latest concepts, and new ones take the place of the oldest, so that memory never
grows with a conversation. What one concept sees is the `window` of concepts up to itself, in the ring or out of it: a
conversation read in pieces gives the same as one read at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

REWINDABLE = 32
"""Concepts beyond the window that the ring holds: so many may be read at once, or taken back"""
_EMPTY = -1


@dataclass(frozen=True, slots=True)
class Placed:
    """Where concepts that are being read stand, and what they see."""

    positions: Tensor  # [B, T] in their conversation; those of padding repeat the last real one's
    slots: Tensor  # [B, T] in the ring; padding goes to a slot that nobody looks at
    visible: Tensor  # [B, 1, T, K] which of the ring's first K slots each one sees
    used: int  # K


@dataclass(slots=True)
class LcmState:
    """Keys and values of every layer; rows may be of different lengths."""

    keys: list[Tensor]  # per layer [B, H, slots + 1, D / H]
    values: list[Tensor]  # per layer [B, H, slots + 1, D / H]
    held: Tensor  # [B, slots + 1] position of the concept in each slot; −1: none
    lengths: Tensor  # [B] concepts so far
    window: int
    longest: int = 0
    """No row is longer: known without asking the device"""
    hidden: Tensor | None = None
    """[B, D] what the next concept is drawn from: the tower's last output"""

    @classmethod
    def empty(
        cls, layers: int, shape: tuple[int, int, int], window: int, like: Tensor, slots: int | None = None
    ) -> Self:
        """Allocated once, for `shape` [B, H, D / H], as `like` on device and in type; `slots` if fewer are needed."""
        batch, heads, width = shape
        slots = min(slots or window + REWINDABLE, window + REWINDABLE)
        # Zeros, not `empty`: a masked key has weight 0, and 0 × NaN would not vanish.
        keys = [like.new_zeros(batch, heads, slots + 1, width) for _ in range(layers)]
        values = [torch.zeros_like(k) for k in keys]
        held = torch.full((batch, slots + 1), _EMPTY, dtype=torch.int64, device=like.device)
        return cls(keys, values, held, torch.zeros(batch, dtype=torch.int64, device=like.device), window)

    @property
    def slots(self) -> int:
        """How many concepts a row holds."""
        return self.held.shape[1] - 1

    @property
    def nbytes(self) -> int:
        """Memory of what it holds."""
        return sum(part.nbytes for part in [*self.keys, *self.values])

    def room(self) -> int:
        """How many concepts may be read at once without overwriting what the first of them still sees."""
        fresh = self.slots - self.longest
        return max(fresh, self.slots - self.window + 1)

    def place(self, new: int, counts: Tensor) -> Placed:
        """Give the next `new` concepts of each row, of which `counts` [B] are no padding, their slots."""
        assert new <= self.room()  # whoever reads more does it in pieces
        index = torch.arange(new, device=self.lengths.device)
        last = (counts - 1)[:, None]
        positions = self.lengths[:, None] + torch.minimum(index, last)
        real = index <= last
        slots = torch.where(real, positions % self.slots, self.slots)
        rows = torch.arange(len(counts), device=counts.device)[:, None]
        self.held[rows, slots] = torch.where(real, positions, _EMPTY)
        used = min(self.slots, self.longest + new)
        held, seeing = self.held[:, None, :used], positions[..., None]
        visible = (held >= 0) & (held <= seeing) & (held > seeing - self.window)
        self.lengths = self.lengths + counts
        self.longest += new
        return Placed(positions, slots, visible[:, None], used)

    def write(self, layer: int, placed: Placed, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values [B, H, T, D / H] into their slots; gives all that is held: [B, H, K, D / H]."""
        rows = torch.arange(len(keys), device=keys.device)[:, None]
        self.keys[layer][rows, :, placed.slots] = keys.transpose(1, 2)
        self.values[layer][rows, :, placed.slots] = values.transpose(1, 2)
        return self.keys[layer][:, :, : placed.used], self.values[layer][:, :, : placed.used]

    def visible(self, ahead: int = 0) -> Tensor:
        """[B, K]: which of the first K slots a concept sees that stands `ahead` places behind the last one read."""
        # On a CPU what is not there yet is not looked at; elsewhere shapes that stay the same are worth more.
        used = min(self.slots, self.longest) if self.held.device.type == "cpu" else self.slots
        held, last = self.held[:, :used], (self.lengths - 1)[:, None]
        return (held >= 0) & (held > last + ahead - self.window)

    def rewind(self, length: int) -> bool:
        """Forget what a state of one row read beyond its first `length` concepts; False: the ring no longer holds them.

        The next concept cannot be drawn before another one is read.
        """
        assert len(self.lengths) == 1  # conversations are rewound one by one
        seen = (self.held > length - self.window) & (self.held >= 0) & (self.held < length)  # by the next one
        if int(seen.sum()) < min(length, self.window - 1):
            return False
        self.held[self.held >= length] = _EMPTY
        self.lengths.fill_(length)
        self.longest, self.hidden = length, None
        return True

    @classmethod
    def joined(cls, states: "Sequence[LcmState]") -> "LcmState":
        """States of one model, one behind the other, as one; those of equal slots. All is copied; of one, nothing."""
        if len(states) == 1:
            return states[0]
        layers = range(len(states[0].keys))
        hidden = [state.hidden for state in states if state.hidden is not None]
        assert len({state.slots for state in states}) == 1  # each was made without a length in mind
        return cls(
            [torch.cat([state.keys[layer] for state in states]) for layer in layers],
            [torch.cat([state.values[layer] for state in states]) for layer in layers],
            torch.cat([state.held for state in states]),
            torch.cat([state.lengths for state in states]),
            states[0].window,
            max(state.longest for state in states),
            torch.cat(hidden) if len(hidden) == len(states) else None,
        )

    def alone(self, row: int, length: int) -> Self:
        """One row, of `length` concepts, as a state of its own, which keeps nothing of the others in memory."""
        state = self if len(self.lengths) == 1 else self.select(torch.tensor([row], device=self.lengths.device))
        state.longest = length
        return state

    def select(self, rows: Tensor) -> Self:
        """A copy of the state of `rows` [B'] alone, in that order: conversations whose turn is complete leave."""
        return type(self)(
            [k[rows] for k in self.keys], [v[rows] for v in self.values], self.held[rows], self.lengths[rows],
            self.window, self.longest, None if self.hidden is None else self.hidden[rows],
        )  # fmt: skip
