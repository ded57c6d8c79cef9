"""Channels: bounded, and clear about what happens when they are full."""

import asyncio

import pytest

from agent.channel import Channel, ChannelClosed


async def test_a_blocking_channel_makes_the_sender_wait_and_loses_nothing() -> None:
    channel: Channel[int] = Channel(2, "block")

    async def send() -> None:
        for number in range(10):
            await channel.send(number)
        channel.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        received = [item async for item in channel]
    assert received == list(range(10))
    assert channel.dropped == 0


async def test_a_live_channel_drops_the_oldest_and_counts() -> None:
    channel: Channel[int] = Channel(3, "drop_oldest")
    for number in range(10):
        await channel.send(number)
    channel.close()
    assert [item async for item in channel] == [7, 8, 9]
    assert channel.dropped == 7


async def test_a_closing_channel_closes_when_full_and_keeps_what_it_has() -> None:
    channel: Channel[int] = Channel(2, "close")
    channel.send_nowait(1)
    channel.send_nowait(2)
    with pytest.raises(ChannelClosed):
        channel.send_nowait(3)
    assert [item async for item in channel] == [1, 2]


async def test_sending_to_a_closed_channel_is_an_error() -> None:
    channel: Channel[int] = Channel(2)
    channel.close()
    with pytest.raises(ChannelClosed):
        await channel.send(1)
    with pytest.raises(ChannelClosed):
        await channel.receive()


async def test_closing_wakes_a_waiting_sender() -> None:
    channel: Channel[int] = Channel(1, "block")
    await channel.send(1)
    sender = asyncio.create_task(channel.send(2))
    await asyncio.sleep(0)
    channel.close()
    with pytest.raises(ChannelClosed):
        await sender


async def test_cancelling_a_receiver_loses_no_item() -> None:
    channel: Channel[int] = Channel(4)
    receiver = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    channel.send_nowait(1)
    receiver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiver
    assert await channel.receive() == 1


async def test_a_blocking_channel_refuses_to_overflow_without_waiting() -> None:
    channel: Channel[int] = Channel(1, "block")
    channel.send_nowait(1)
    with pytest.raises(asyncio.QueueFull):
        channel.send_nowait(2)


async def test_what_nobody_wants_any_more_makes_room() -> None:
    channel: Channel[int] = Channel(2, "block")
    channel.send_nowait(1)
    channel.send_nowait(2)
    sender = asyncio.create_task(channel.send(3))
    await asyncio.sleep(0)
    channel.take_back(lambda item: item == 1)
    await sender
    assert [await channel.receive(), await channel.receive()] == [2, 3]
