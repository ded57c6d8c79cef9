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


def windows_of(documents: Documents, chosen: list[tuple[slice, bool]]) -> Windows:
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


def epoch_windows(documents: Documents, window: int, crop_share: float, seed: int, epoch: int) -> list[tuple[slice, bool]]:
    """Windows of at most `window` + 1 sentences that cover each document once, from a random start on.

    A `crop_share` of the documents begins at a later turn: the agent knows short pasts too.
    """
    rng = np.random.default_rng((seed, epoch))
    chosen: list[tuple[slice, bool]] = []
    for number in range(len(documents)):
        rows = documents.rows(number)
        symmetric = documents.corpus(number).split("/")[1].split(".")[0] in SYMMETRIC
        swapped = bool(symmetric and rng.random() < 0.5)  # noqa: PLR2004
        start, length = rows.start, rows.stop - rows.start
        if rng.random() < crop_share and length > 4:
            start += int(rng.integers(length // 2))
        elif length > window + 1:
            cut = start + 2 + int(rng.integers(window - 1))
            chosen.append((slice(start, cut), swapped))
            start = cut - 1
        while rows.stop - start >= 2:
            stop = min(start + window + 1, rows.stop)
            chosen.append((slice(start, stop), swapped))
            start = stop - 1
    return chosen


def epoch_batches(
    documents: Documents, chosen: list[tuple[slice, bool]], sentences_a_step: int, seed: int, epoch: int
) -> list[list[tuple[slice, bool]]]:
    """The windows in shuffled batches of like length, about `sentences_a_step` sentences each."""
    rng = np.random.default_rng((seed, epoch, 1))
    lengths = np.array([rows.stop - rows.start for rows, _ in chosen])
    order: Ints = np.lexsort((rng.random(len(chosen)), lengths // 2))
    batches, batch = [], []
    for index in order:
        if batch and (len(batch) + 1) * int(lengths[index]) > sentences_a_step:
            batches.append(batch)
            batch = []
        batch.append(chosen[index])
    batches.append(batch)
    return [batches[i] for i in rng.permutation(len(batches))]


def iterate(
    documents: Documents, window: int, crop_share: float, sentences_a_step: int, seed: int, epoch: int, skip: int
) -> Iterator[tuple[int, int, Windows]]:
    """Batches of one epoch from number `skip` on: number, how many there are, the batch."""
    chosen = epoch_windows(documents, window, crop_share, seed, epoch)
    batches = epoch_batches(documents, chosen, sentences_a_step, seed, epoch)
    for number, batch in enumerate(batches):
        if number >= skip:
            yield number, len(batches), windows_of(documents, batch)
