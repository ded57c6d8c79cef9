"""Base-LCM batches: documents as concept rows in, padded windows out. Knows nothing of models or losses.

The windows of an epoch depend on the seed and the epoch's number alone: a resumed run sees the same ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcm.models.base_lcm import ROLE_AGENT, ROLE_USER, Turns, places_in_turn
from lcm.training.concepts import SYMMETRIC, Documents, Ints

PADDING = -1


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch of windows of consecutive sentences; the last of each is a target only."""

    sentences: Tensor  # [B, T + 1] row of the concept table; `PADDING` on the right
    turns: Turns  # of the first T
    last: Tensor  # [B, T] whether the sentence ends its turn
    starts_reply: Tensor  # [B, T] whether the next sentence is another speaker's

    @property
    def known(self) -> Tensor:
        """[B, T]: positions with a successor."""
        return self.sentences[:, 1:] != PADDING

    def to(self, device: torch.device) -> "Windows":
        """The same on `device`."""
        roles, places, next_roles = (t.to(device) for t in (self.turns.roles, self.turns.places, self.turns.next_roles))
        moved = (t.to(device) for t in (self.last, self.starts_reply))
        return Windows(self.sentences.to(device), Turns(roles, places, next_roles), *moved)


def windows_of(documents: Documents, chosen: "list[Where]") -> Windows:
    """One row each: where its sentences stand in `documents`, and whether the speakers change places."""
    width = max(rows.stop - rows.start for rows, _ in chosen)
    sentences = torch.full((len(chosen), width), PADDING, dtype=torch.int64)
    roles = torch.zeros((len(chosen), width), dtype=torch.int64)
    last = torch.zeros((len(chosen), width))
    for row, (where, swapped) in enumerate(chosen):
        size = where.stop - where.start
        sentences[row, :size] = torch.from_numpy(documents.sentences[where].astype(np.int64))
        told = documents.roles[where].astype(np.int64)
        roles[row, :size] = torch.from_numpy(ROLE_AGENT + ROLE_USER - told if swapped else told)
        last[row, :size] = torch.from_numpy(documents.last[where].astype(np.float32))
    turns = Turns(roles[:, :-1], places_in_turn(roles)[:, :-1], roles[:, 1:])
    return Windows(sentences, turns, last[:, :-1], roles[:, 1:] != roles[:, :-1])


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How documents are cut and batched."""

    window: int
    """longest window, in sentences read"""
    crop_share: float
    """of the documents, which begin at a later sentence: the agent knows short pasts too"""
    sentences_a_step: int
    seed: int


Where = tuple[slice, bool]
"""a window's place in the documents, and whether the speakers change places"""


def epoch_windows(documents: Documents, plan: WindowPlan, epoch: int) -> list[Where]:
    """Windows that cover each document once, from a random start on, each beginning with the last one's end."""
    rng = np.random.default_rng((plan.seed, epoch))
    chosen: list[Where] = []
    for number in range(len(documents)):
        rows = documents.rows(number)
        symmetric = documents.corpus(number).split("/")[1].split(".")[0] in SYMMETRIC
        swapped = bool(symmetric and rng.random() < 0.5)  # noqa: PLR2004
        start, length = rows.start, rows.stop - rows.start
        if rng.random() < plan.crop_share and length > 4:
            start += int(rng.integers(length // 2))
        elif length > plan.window + 1:
            cut = start + 2 + int(rng.integers(plan.window - 1))
            chosen.append((slice(start, cut), swapped))
            start = cut - 1
        while rows.stop - start >= 2:
            stop = min(start + plan.window + 1, rows.stop)
            chosen.append((slice(start, stop), swapped))
            start = stop - 1
    return chosen


def planned(documents: Documents, plan: WindowPlan, epoch: int) -> list[list[Where]]:
    """The epoch's windows in shuffled batches of like length."""
    chosen = epoch_windows(documents, plan, epoch)
    rng = np.random.default_rng((plan.seed, epoch, 1))
    lengths = np.array([rows.stop - rows.start for rows, _ in chosen])
    order: Ints = np.lexsort((rng.random(len(chosen)), lengths // 2))
    batches: list[list[Where]] = [[]]
    for index in order:
        if batches[-1] and (len(batches[-1]) + 1) * int(lengths[index]) > plan.sentences_a_step:
            batches.append([])
        batches[-1].append(chosen[index])
    return [batches[i] for i in rng.permutation(len(batches))]


def iterate(documents: Documents, plan: WindowPlan, epoch: int, skip: int) -> Iterator[tuple[int, int, Windows]]:
    """Batches of one epoch from number `skip` on: number, how many there are, the batch."""
    batches = planned(documents, plan, epoch)
    for number, batch in enumerate(batches):
        if number >= skip:
            yield number, len(batches), windows_of(documents, batch)
