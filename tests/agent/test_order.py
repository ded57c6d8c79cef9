"""The order of inputs: as they arrive, or by their place on the clock of a file."""

import asyncio

import numpy as np

from agent.core.inputs import (
    AudioInput,
    CancelTurn,
    Decode,
    Decoded,
    Input,
    InputEnded,
    SettingsChanged,
    Speak,
    TypedText,
    Voiced,
)
from agent.order import ArrivalOrder, InputOrder, VirtualLatency, VirtualOrder


def frame(number: int) -> AudioInput:
    return AudioInput(number * 320, np.zeros(320, np.float32), 0.0)


def decode(request: int, turn: int = 1) -> Decode:
    return Decode(request, turn, 0, np.zeros((1, 4), np.float32), "eng")


async def everything(order: InputOrder) -> list[tuple[str, int]]:
    items: list[Input] = []
    while (item := await order.next()) is not None:
        items.append(item)
    return [(type(item).__name__, item.at_sample) for item in items]


async def test_a_result_that_comes_after_the_end_is_nobodys_fault() -> None:
    for order in (ArrivalOrder(), VirtualOrder(VirtualLatency())):
        order.close()
        await order.result(Decoded(0, 1, 1, 0, "late"))
        assert await order.next() in (None, InputEnded(0))


async def test_what_arrives_carries_the_place_of_the_last_frame() -> None:
    order = ArrivalOrder()
    await order.frame(frame(0))
    await order.command(TypedText(0, "Hello."))
    await order.frame(frame(1))
    await order.input_ended()
    order.close()
    assert await everything(order) == [
        ("AudioInput", 320),
        ("TypedText", 320),
        ("AudioInput", 640),
        ("InputEnded", 640),
    ]


async def test_at_one_place_commands_come_first_then_results_then_frames_then_the_end() -> None:
    order = VirtualOrder(VirtualLatency(decode_ms=40), [SettingsChanged(640, "fra", None, "converse")])
    order.requested(decode(1), at_sample=0)
    order.requested(decode(2), at_sample=320)
    for number in range(2):
        await order.frame(frame(number))
    await order.input_ended()
    await order.result(Decoded(0, 2, 1, 0, "second"))
    await order.result(Decoded(0, 1, 1, 0, "first"))
    assert await everything(order) == [
        ("AudioInput", 320),
        ("SettingsChanged", 640),
        ("Decoded", 640),
        ("AudioInput", 640),
        ("InputEnded", 640),
        ("Decoded", 960),
    ]


async def test_the_rest_of_a_sentence_takes_no_time_and_the_file_waits_for_it() -> None:
    order = VirtualOrder(VirtualLatency(voice_ms=20))
    order.requested(Speak(1, 1, 0, "Hello.", "eng"), at_sample=0)
    await order.input_ended()
    following = asyncio.create_task(everything(order))
    for last in (False, False, True):
        await order.result(Voiced(0, 1, 1, 0, np.zeros(2, np.float32), last))
    assert await following == [("InputEnded", 0), *[("Voiced", 320)] * 3]


async def test_nobody_waits_for_a_turn_that_was_cancelled() -> None:
    order = VirtualOrder(VirtualLatency())
    order.requested(decode(1, turn=1), at_sample=0)
    order.requested(decode(2, turn=2), at_sample=0)
    order.requested(CancelTurn(1, 2), at_sample=0)
    await order.result(Decoded(0, 1, 1, 0, "unwanted"))
    await order.result(Decoded(0, 2, 2, 0, "wanted"))
    await order.input_ended()
    assert await everything(order) == [("InputEnded", 0), ("Decoded", 640)]
