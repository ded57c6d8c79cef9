"""Metrics and the report's envelope: small arithmetic that is quoted and drawn."""

import pytest

from agent.metrics import percentile
from agent.recordings.report import _Envelope


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 10.0), (0.95, 19.0), (1.0, 20.0)])
def test_a_percentile_is_the_nearest_rank(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(20, 0, -1)], share) == value


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("frames", [10, 3201, 6500, 100_000])
def test_an_envelope_keeps_every_peak_at_its_place(frames: int) -> None:
    envelope = _Envelope()
    peaks = range(7, frames, 1000)
    for number in range(frames):
        envelope.add(1.0 if number in peaks else 0.0)
    assert len(envelope.values) <= 3200
    assert (len(envelope.values) - 1) * envelope.frames_each < frames <= len(envelope.values) * envelope.frames_each
    assert [place for place, value in enumerate(envelope.values) if value] == sorted(
        {peak // envelope.frames_each for peak in peaks}
    )
