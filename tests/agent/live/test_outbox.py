"""The outbox keeps order and a bound, and takes back sound that nobody is to hear."""

import asyncio

import pytest

from agent.live.outbox import TOO_SLOW, Farewell, Outbox, OutboxClosed

BYE = Farewell(1012, "bye", "drain")


async def taken(outbox: Outbox) -> list[str]:
    """Everything up to the farewell."""
    texts = []
    while True:
        try:
            texts.append(await outbox.take())
        except OutboxClosed:
            return texts


async def test_messages_come_out_as_they_went_in() -> None:
    outbox = Outbox(1000)
    taking = asyncio.create_task(taken(outbox))
    for text in "abc":
        outbox.put(text)
    outbox.close(BYE)
    outbox.put("too late")
    assert await taking == ["a", "b", "c"]
    assert outbox.bytes == 0


async def test_a_reader_that_is_too_slow_is_told_so_and_nothing_more_is_kept() -> None:
    outbox = Outbox(10)
    outbox.put("12345")
    outbox.put("123456")
    assert outbox.farewell == TOO_SLOW
    assert outbox.bytes == 0
    outbox.put("x")
    assert await taken(outbox) == []


async def test_what_waits_counts_in_bytes_in_whatever_script_it_is() -> None:
    outbox = Outbox(10)
    outbox.put("日本語")
    assert outbox.bytes == 9
    outbox.put("é")
    assert outbox.farewell == TOO_SLOW
    missed = Outbox(1)
    missed.catch_up(["日本語"])
    missed.put("x")
    missed.close(BYE)
    assert await taken(missed) == ["日本語", "x"]


async def test_it_breaks_off_though_nobody_takes() -> None:
    outbox = Outbox(10)
    watching = asyncio.create_task(outbox.broken())
    outbox.put("x" * 11)
    with pytest.raises(OutboxClosed) as caught:
        await watching
    assert caught.value.farewell == TOO_SLOW


async def test_sound_is_taken_back_and_words_are_not() -> None:
    outbox = Outbox(100)
    outbox.put("a")
    outbox.put("sound", is_sound=True)
    outbox.put("b")
    outbox.drop_sound()
    assert (outbox.bytes, outbox.dropped) == (2, 1)
    outbox.put("later", is_sound=True)
    outbox.close(BYE)
    assert await taken(outbox) == ["a", "b", "later"]


async def test_what_was_missed_does_not_count_as_slowness() -> None:
    outbox = Outbox(10)
    outbox.catch_up(["x" * 8] * 5)
    outbox.put("12345")
    outbox.close(BYE)
    assert await taken(outbox) == [*["x" * 8] * 5, "12345"]


async def test_the_first_farewell_holds() -> None:
    outbox = Outbox(10)
    outbox.close(BYE)
    outbox.close(TOO_SLOW)
    with pytest.raises(OutboxClosed) as caught:
        await outbox.take()
    assert caught.value.farewell == BYE
