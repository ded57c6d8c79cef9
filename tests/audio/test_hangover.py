"""Adaptive hangover: somebody who halts is given time, somebody fluent is answered sooner."""

import pytest

from audio.hangover import AdaptiveHangover

BOUNDS = (320, 960)


def hangover(*pauses_ms: int) -> int:
    adaptive = AdaptiveHangover(480, BOUNDS)
    for pause in pauses_ms:
        if pause:
            adaptive.paused(pause)
        adaptive.ended()
    return adaptive.milliseconds


@pytest.mark.parametrize(
    ("pauses_ms", "expected"),
    [
        ((), 480),
        ((400,), 480),
        ((400, 460), 500),
        ((700, 700), 880),
        ((900, 900), 960),
        ((0, 0, 0), 480),
        ((0, 0, 0, 0), 320),
        ((200, 0, 0, 0, 900), 320),
        ((200, 0, 300, 0, 900), 380),
    ],
)
def test_it_follows_the_second_longest_pause_within_bounds(pauses_ms: tuple[int, ...], expected: int) -> None:
    assert hangover(*pauses_ms) == expected


def test_an_end_that_came_too_soon_teaches_too() -> None:
    adaptive = AdaptiveHangover(480, BOUNDS)
    for _ in range(2):
        adaptive.ended()
        adaptive.ended_too_soon(640)
    assert adaptive.milliseconds == 800
    for _ in range(2):
        adaptive.ended_too_soon(5000)
    assert adaptive.milliseconds == 800


def test_what_was_long_ago_is_forgotten() -> None:
    assert hangover(*[700] * 12) == 880
    assert hangover(*[700] * 12, *[0] * 12) == 320
