"""Pauses: a long waveform in, places out where it can be cut into pieces that each fit one concept. Pure.

Each piece ends at the quietest place in the second half of what it may hold, so that words stay whole where the
speaker pauses at all. The live agent cuts by voice activity instead (`audio/segmenter.py`); this is for recordings
that come as they are.
"""

import torch.nn.functional as F
from torch import Tensor

from lcm.space.fbank import SAMPLE_RATE

_HOP = SAMPLE_RATE // 50
_SMOOTHED = 11
"""Frames of 20 ms over which loudness counts: a stop consonant is no pause"""


def cut_at_pauses(samples: Tensor, longest_seconds: float) -> list[tuple[int, int]]:
    """Where the pieces of a waveform [T] at 16 kHz begin and end, without gaps, each at most `longest_seconds`.

    The last two share what is left, so that no snippet stands at the end.
    """
    longest, end = int(longest_seconds * SAMPLE_RATE), len(samples)
    if end <= longest:
        return [(0, end)] if end else []
    loudness = _loudness(samples)
    pieces: list[tuple[int, int]] = []
    start = 0
    while end - start > longest:
        last = min(longest, (end - start) * 2 // 3) if end - start < 2 * longest else longest
        first = start + last // 2
        window = loudness[first // _HOP : (start + last) // _HOP]
        cut = (first // _HOP + int(window.argmin())) * _HOP + _HOP // 2
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, end)]


def _loudness(samples: Tensor) -> Tensor:
    """Power of each frame of 20 ms, smoothed over its neighbours [T / 320]."""
    frames = F.pad(samples, (0, -len(samples) % _HOP)).view(-1, _HOP)
    power = frames.float().square().mean(dim=1)
    return F.avg_pool1d(power[None, None], _SMOOTHED, stride=1, padding=_SMOOTHED // 2, count_include_pad=False)[0, 0]
