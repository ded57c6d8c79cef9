"""`noema talk --url`: microphone and loudspeaker here, the agent on a server elsewhere."""

import argparse
import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from agent.commands.options import warn
from agent.errors import OK, UsageError

if TYPE_CHECKING:
    from agent.client.realtime_client import RealtimeClient
    from agent.client.remote_conversation import RemoteConversation
    from agent.core.inputs import PlaybackPosition
    from agent.loudspeaker import Loudspeaker
    from agent.terminal import Screen
    from audio.playback import Playback
    from audio.source import Microphone

_OF_THE_SERVER = ("config", "bundle", "device", "precision", "backend", "thinker", "variant", "vad")
_OPENING = "opening"
_TOLD_EVERY_S = 0.2
_ECHO_GUARD_S = 0.3
"""How long after the last sound of a reply the microphone stays closed"""


def run(args: argparse.Namespace, devices: tuple[int | str | None, int | str | None]) -> int:
    """Converses until Ctrl-C.

    Args:
        args: of `noema talk`.
        devices: microphone and loudspeaker.
    """
    for name in _OF_THE_SERVER:
        if getattr(args, name, None) is not None:
            raise UsageError(f"--{name} is for the machine that thinks; with --url, start the server with it")
    if args.task == "translate" and args.to is None:
        raise UsageError("translate into which language? Give --to, for instance --to fra")
    return asyncio.run(_run(args, *devices))


def opening(args: argparse.Namespace, *, spoken: bool) -> dict[str, Any]:
    """The message with which the session begins."""
    asked = {"task": args.task, "language": args.language, "reply_language": args.to}
    noema = {name: value for name, value in asked.items() if value is not None}
    noema |= {"latency": True, "resume": True}
    if args.record:
        noema["record"] = True
    session = {"type": "realtime", "output_modalities": ["audio" if spoken else "text"], "noema": noema}
    return {"type": "session.update", "event_id": _OPENING, "session": session}


async def _run(args: argparse.Namespace, input_device: int | str | None, output_device: int | str | None) -> int:
    from agent.client.realtime_client import RealtimeClient
    from agent.client.remote_conversation import RemoteConversation
    from agent.client.server_address import address
    from agent.loudspeaker import Loudspeaker
    from agent.metrics import Metrics
    from agent.terminal import Screen
    from audio.playback import Playback
    from audio.source import Microphone

    place = address(args.url, args.token, args.token_file, args.ca)
    spoken = not args.text and args.task != "transcribe"
    async with AsyncExitStack() as stack:
        microphone = await stack.enter_async_context(Microphone(input_device))
        playback = await stack.enter_async_context(Playback(output_device)) if spoken else None
        metrics = Metrics()
        screen = stack.enter_context(Screen(metrics))
        loudspeaker = Loudspeaker(playback) if playback is not None else None
        talk = Talk(RemoteConversation(metrics.add), screen, loudspeaker)
        client = RealtimeClient(place, opening(args, spoken=spoken), talk.hear, warn)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.run(), name="talk to the server")
            tasks.create_task(talk.listen(microphone, None if args.headphones else playback, client), name="listen")
            if loudspeaker is not None:
                tasks.create_task(loudspeaker.report(talk.tell(client), _TOLD_EVERY_S), name="playback-position")
    return OK


class Talk:
    """What the microphone hears goes out, what the server says is shown and played."""

    def __init__(self, conversation: "RemoteConversation", screen: "Screen", loudspeaker: "Loudspeaker | None") -> None:
        self._conversation = conversation
        self._screen = screen
        self._loudspeaker = loudspeaker
        self._begun = False

    async def hear(self, message: dict[str, Any]) -> None:
        """Takes what the server says; the loudspeaker first, which may have to fall silent."""
        if message["type"] == "error" and message["error"].get("event_id") == _OPENING:
            raise UsageError(message["error"]["message"])
        for event in self._conversation.take(message):
            if self._loudspeaker is not None:
                await self._loudspeaker.on_event(event)
            await self._screen.on_event(event)
        if message["type"] == "session.updated" and not self._begun:
            self._begun = True
            noema = message["session"]["noema"]
            print(f"Listening to {noema['language']}. Ctrl-C ends.", flush=True)
            if noema["recording"]:
                print("The server records this.", flush=True)

    async def listen(self, microphone: "Microphone", echo_of: "Playback | None", client: "RealtimeClient") -> None:
        """Sends what the microphone hears; silence, while a loudspeaker is on that it would hear."""
        import numpy as np

        from agent.core.inputs import AudioInput
        from audio.frames import FRAME_SAMPLES, SAMPLE_RATE, VOICE_RATE, to_pcm16
        from audio.polyphase import PolyphaseResampler

        resampler = PolyphaseResampler(SAMPLE_RATE, VOICE_RATE)
        silence = np.zeros(FRAME_SAMPLES, np.float32)
        expected, deaf_until = 0, 0.0
        async for frame in microphone.frames():
            if echo_of is not None and echo_of.playing:
                deaf_until = asyncio.get_running_loop().time() + _ECHO_GUARD_S
            deaf = asyncio.get_running_loop().time() < deaf_until
            for _ in range(expected, frame.start_sample, FRAME_SAMPLES):  # what the microphone had to drop
                client.send_audio(to_pcm16(resampler.push(silence)).astype("<i2").tobytes())
            expected = frame.end_sample
            samples = silence if deaf else frame.samples
            client.send_audio(to_pcm16(resampler.push(samples)).astype("<i2").tobytes())
            self._conversation.at(frame.end_sample)
            await self._screen.on_input(AudioInput(frame.start_sample, samples, 0.0))

    def tell(self, client: "RealtimeClient") -> Any:
        """Tells the server what has been heard."""

        async def told(position: "PlaybackPosition") -> None:
            message = self._conversation.playback(position.heard_sample)
            if message is not None:
                client.send(message)

        return told
