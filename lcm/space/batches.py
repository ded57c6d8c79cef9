"""Batches: items of any lengths in, padded batches of like length out, and how long what they say may be. Pure."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

SPEECH_BATCH = 16
_STEP_SECONDS, _TOKENS_IN_STEP = 4.0, 48
FRAMES_MULTIPLE = 16
"""Feature frames are padded to a multiple. oneDNN keeps compiled code for every length it meets, and no two utterances
are equally long: over 360 utterances memory grew by 59 MB unpadded, by 17 MB (and no further) padded"""


def most_tokens(seconds: float) -> int:
    """More than anybody says in that time, in steps of 4 s, so that few limits are needed.

    A decoding in the wrong language would else go on until the decoder's own limit.
    """
    return _TOKENS_IN_STEP * math.ceil(seconds / _STEP_SECONDS)


def padded_batches(features: Sequence[Tensor], chosen: Sequence[int]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Batches of like length of the `chosen`: which they are, their features [B, F, 80] and how many are theirs [B]."""
    for positions in length_sorted([len(features[i]) for i in chosen], SPEECH_BATCH):
        batch = [chosen[at] for at in positions]
        lengths = torch.tensor([len(features[i]) for i in batch])
        padded = torch.nn.utils.rnn.pad_sequence([features[i] for i in batch], batch_first=True)  # [B, F, 80]
        yield batch, torch.nn.functional.pad(padded, (0, 0, 0, -padded.shape[1] % FRAMES_MULTIPLE)), lengths


def length_sorted(lengths: list[int], size: int) -> list[list[int]]:
    """Indices of items of these lengths in batches of like length: little padding, whatever the order of the items."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[i : i + size] for i in range(0, len(order), size)]
