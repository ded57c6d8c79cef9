"""The echo guard: a reply that comes back through a room is nobody, whoever speaks into it is somebody, soon."""

import asyncio
import itertools

import numpy as np
import pytest

from audio.echo import EchoGuard
from audio.echo_room import EchoRoom, convolve, impulse_response, random_room
from audio.echo_scoreboard import BARGE_IN_MS
from audio.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE, VOICE_RATE, FloatArray, Framer
from audio.resample import resample
from audio.voice import Voice
from tests.audio.signals import joined, noise

GIVEN_AT = SAMPLE_RATE // 2
REPLY = "The train to Hamburg leaves at ten past eight from platform four, and it is on time today."
SECOND_REPLY = "You will need a seat reservation for it, because the morning trains are usually full."
INTERRUPTION = "Wait, wait, I did not ask about Hamburg, I want to go to Munich tomorrow evening."
ROOMS = {
    "close by": EchoRoom(gain_db=0, delay_ms=60, reverberation_s=0.15, direct_db=6, seed=1),
    "across the room": EchoRoom(gain_db=-20, delay_ms=240, reverberation_s=0.5, direct_db=-6, seed=2),
    "a long way": EchoRoom(gain_db=-10, delay_ms=700, jitter_ms=40, seed=3),
    "overdriven": EchoRoom(gain_db=-6, delay_ms=330, overdrive=1.5, lowest_hz=400, highest_hz=5000, seed=4),
}


def spoken(text: str, variant: str | None = None) -> FloatArray:
    """A sentence at 24 kHz."""

    async def speak() -> FloatArray:
        async with Voice() as voice:
            return await voice.synthesize(text, "eng", variant=variant)

    return asyncio.run(speak())


@pytest.fixture(scope="module")
def replies() -> list[FloatArray]:
    return [spoken(REPLY), spoken(SECOND_REPLY)]


@pytest.fixture(scope="module")
def somebody() -> FloatArray:
    """Another voice near the microphone, 16 kHz, of loudness 1."""
    said = resample(spoken(INTERRUPTION, "f3"), VOICE_RATE, SAMPLE_RATE).astype(np.float64)
    heard = convolve(said, impulse_response(0.2, 8, np.random.default_rng(5)))
    near: FloatArray = (heard / np.sqrt(np.mean(heard**2))).astype(np.float32)
    return near


def loudness(samples: FloatArray) -> float:
    """Root mean square of what is not silence."""
    return float(np.sqrt(np.mean(samples[np.abs(samples) > 1e-3] ** 2)))


def factors(
    microphone: FloatArray, replies: list[tuple[int, FloatArray]], guard: EchoGuard | None = None
) -> FloatArray:
    """What the guard makes of every frame, while replies are given out at these samples."""
    guard = guard or EchoGuard()
    waiting = list(replies)
    found = []
    for frame in Framer().push(microphone):
        while waiting and waiting[0][0] <= frame.start_sample:
            guard.give(waiting.pop(0)[1])
        found.append(guard.factor(frame))
    return np.array(found, dtype=np.float32)


def conversation(
    room: EchoRoom, replies: list[FloatArray]
) -> tuple[list[tuple[int, FloatArray]], FloatArray, list[slice]]:
    """Replies with a pause between them, what comes back of them over a quiet room, and in which frames it is heard."""
    second_at = GIVEN_AT + len(replies[0]) * 2 // 3 + 2 * SAMPLE_RATE
    given = list(zip([GIVEN_AT, second_at], replies, strict=False))
    length = (given[-1][0] + len(given[-1][1]) * 2 // 3 + 2 * SAMPLE_RATE) // FRAME_SAMPLES * FRAME_SAMPLES
    delay = round(room.delay_ms * SAMPLE_RATE / 1000)
    heard = [slice((at + delay) // FRAME_SAMPLES, (at + delay + len(r) * 2 // 3) // FRAME_SAMPLES) for at, r in given]
    return given, room.hear(given, length) + noise(length, level=3e-4), heard


def longest_open(found: FloatArray) -> int:
    """Milliseconds for which the guard lets speech through at a stretch."""
    return max((len(list(run)) for open_, run in itertools.groupby(found > 0) if open_), default=0) * FRAME_MS


@pytest.mark.parametrize("where", ROOMS)
def test_an_echo_does_not_last_long_enough_to_interrupt(where: str, replies: list[FloatArray]) -> None:
    given, microphone, (first, second) = conversation(ROOMS[where], replies)
    found = factors(microphone, given)
    for heard in (first, second):
        assert longest_open(found[heard]) < BARGE_IN_MS
        assert found[heard].mean() < 0.25


def test_the_end_of_an_echo_that_comes_after_the_reply_begins_no_turn(replies: list[FloatArray]) -> None:
    room = EchoRoom(gain_db=-1, delay_ms=540, reverberation_s=0.35, overdrive=1.3, seed=4)
    given, microphone, heard = conversation(room, replies)
    found = factors(microphone, given)
    for echo in heard:
        assert longest_open(found[echo.stop - round(room.delay_ms / FRAME_MS) : echo.stop + 500 // FRAME_MS]) < 100


@pytest.mark.parametrize("where", ROOMS)
@pytest.mark.parametrize("level_db", [0, 10])
def test_somebody_who_cuts_in_is_let_through(
    where: str, level_db: int, replies: list[FloatArray], somebody: FloatArray
) -> None:
    given, microphone, (first, _) = conversation(ROOMS[where], replies)
    start = first.start * FRAME_SAMPLES + SAMPLE_RATE
    level = loudness(microphone[first.start * FRAME_SAMPLES : first.stop * FRAME_SAMPLES]) * 10 ** (level_db / 20)
    microphone = microphone.copy()
    microphone[start : start + len(somebody)] += level * somebody
    speaks = factors(microphone, given)[start // FRAME_SAMPLES :][: 2 * SAMPLE_RATE // FRAME_SAMPLES]
    assert speaks[: 300 // FRAME_MS].any()
    assert speaks.mean() > 0.7


def test_without_an_echo_nothing_is_held_back(replies: list[FloatArray], somebody: FloatArray) -> None:
    given, silence, _ = conversation(EchoRoom(gain_db=-200, delay_ms=0), replies)
    for start in range(GIVEN_AT + 1000, given[1][0] + SAMPLE_RATE, 9000):
        microphone = silence.copy()
        microphone[start : start + len(somebody)] += 0.05 * somebody[: len(microphone) - start]
        assert (factors(microphone, given) == 1).all()


@pytest.mark.parametrize("quiet", [0.0, 1e-3])
@pytest.mark.parametrize("after_ms", [0, 100, 300])
def test_who_answers_at_once_where_there_is_no_echo_is_heard_even_in_the_agents_voice(
    replies: list[FloatArray], after_ms: int, quiet: float
) -> None:
    ends_at = len(replies[0]) * 2 // 3 // FRAME_SAMPLES * FRAME_SAMPLES
    answer = resample(spoken("I want to go to Munich."), VOICE_RATE, SAMPLE_RATE)
    answer = answer[np.flatnonzero(np.abs(answer) > 0.01)[0] :]
    silence = np.zeros(GIVEN_AT + ends_at + after_ms * SAMPLE_RATE // 1000, dtype=np.float32)
    microphone = joined([silence, answer])
    microphone += quiet * noise(len(microphone))
    assert factors(microphone, [(GIVEN_AT, replies[0])]).min() == 1


def test_while_nothing_is_played_everybody_is_heard(replies: list[FloatArray], somebody: FloatArray) -> None:
    given, microphone, _ = conversation(ROOMS["close by"], replies)
    guard = EchoGuard()
    factors(microphone, given, guard)
    assert guard.lag_ms is not None
    assert (factors(0.05 * somebody, [], guard)[SAMPLE_RATE // FRAME_SAMPLES :] == 1).all()


def test_how_late_the_echo_comes_is_found(replies: list[FloatArray]) -> None:
    for delay_ms in (0, 150, 480, 780):
        given, microphone, _ = conversation(EchoRoom(gain_db=-8, delay_ms=delay_ms), replies)
        guard = EchoGuard()
        assert guard.lag_ms is None
        factors(microphone, given, guard)
        assert guard.lag_ms == pytest.approx(delay_ms, abs=30)


def test_playback_that_stalls_is_found_again(replies: list[FloatArray]) -> None:
    room = EchoRoom(gain_db=-6, delay_ms=120, stall_ms=180, seed=9)
    given, microphone, (first, second) = conversation(room, replies)
    found = factors(microphone, given)
    assert longest_open(found[first]) < BARGE_IN_MS
    assert longest_open(found[second]) < BARGE_IN_MS


def test_a_reply_that_is_cut_off_is_not_waited_for(replies: list[FloatArray]) -> None:
    room = ROOMS["close by"]
    cut_at = GIVEN_AT + SAMPLE_RATE
    second_at = cut_at + SAMPLE_RATE // FRAME_SAMPLES * FRAME_SAMPLES
    given = [(GIVEN_AT, replies[0][:VOICE_RATE]), (second_at, replies[1])]
    microphone = room.hear(given, second_at + len(replies[1]) * 2 // 3 + SAMPLE_RATE) + noise(
        second_at + len(replies[1]) * 2 // 3 + SAMPLE_RATE, level=3e-4
    )
    guard = EchoGuard()
    found = [factors(microphone[:cut_at], [(GIVEN_AT, replies[0])], guard)]
    guard.cut()
    found.append(factors(microphone[cut_at:], [(second_at - cut_at, replies[1])], guard))
    assert (
        longest_open(joined(found)[(second_at + 1000) // FRAME_SAMPLES : -SAMPLE_RATE // FRAME_SAMPLES]) < BARGE_IN_MS
    )


def test_a_reply_in_pieces_is_the_same_reply(replies: list[FloatArray]) -> None:
    given, microphone, _ = conversation(random_room(np.random.default_rng(7)), replies)
    pieces = [
        (at + i * 160, piece)
        for at, reply in given
        for i, piece in enumerate(np.split(reply, range(1200, len(reply), 1200)))
    ]
    assert np.array_equal(factors(microphone, given), factors(microphone, pieces))


def test_what_waits_to_be_played_is_bounded() -> None:
    from audio.assumed_playback import MAX_GIVEN_SECONDS, AssumedPlayback

    playback = AssumedPlayback()
    for _ in range(2 * MAX_GIVEN_SECONDS):
        playback.give(np.ones(VOICE_RATE, dtype=np.float32))
    played = sum(float(playback.next_frame().any()) for _ in range(3 * MAX_GIVEN_SECONDS * 50))
    assert MAX_GIVEN_SECONDS * 50 <= played <= (MAX_GIVEN_SECONDS + 2) * 50
