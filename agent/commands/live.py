"""`noema chat` and `noema talk`: a conversation, typed or spoken, in the terminal."""

import argparse
import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

from agent.commands import talk_elsewhere
from agent.commands.options import (
    add_conversation_options,
    add_json_option,
    add_model_options,
    add_server_options,
    check_task,
    print_json,
    settings,
    subparser,
    warn,
)
from agent.commands.recorder import recorder
from agent.errors import FAILED, OK, TextInputError
from agent.language_choice import check_typed

if TYPE_CHECKING:
    from agent.config import AgentConfig
    from agent.core.events import DomainEvent
    from agent.core.inputs import Input
    from agent.core.turn_options import TurnOptions
    from agent.order import ArrivalOrder
    from agent.session import Listener
    from audio.frames import AudioFrame
    from audio.source import Microphone

_CHAT = """
noema chat
noema chat --language fra
noema chat --task translate --to deu
echo "How are you?" | noema chat --json
"""
_TALK = """
noema talk
noema talk --headphones
noema talk --task translate --language eng --to fra --record
noema talk --language auto
noema talk --url ws://192.0.2.7:8765 --language auto
noema talk --list-devices
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes both subcommands."""
    chat = subparser(commands, "chat", "converse in text", _CHAT)
    add_conversation_options(chat)
    chat.add_argument("--record", action="store_true", help="keep the session")
    add_json_option(chat)
    add_model_options(chat)
    chat.set_defaults(run=run_chat)
    talk = subparser(commands, "talk", "converse by microphone and loudspeaker", _TALK)
    add_conversation_options(talk)
    talk.add_argument(
        "--headphones", action="store_true", help="no echo: listen while speaking, and stop when interrupted"
    )
    talk.add_argument("--list-devices", action="store_true", help="list sound devices and stop")
    talk.add_argument("--input", metavar="DEVICE", help="microphone: number or part of its name")
    talk.add_argument("--output", metavar="DEVICE", help="loudspeaker: number or part of its name")
    talk.add_argument("--text", action="store_true", help="reply in text only")
    talk.add_argument("--vad", choices=("webrtc", "silero"), help="which detector listens")
    talk.add_argument("--record", action="store_true", help="keep the session")
    talk.add_argument("--json", action="store_true", help="with --list-devices: print one JSON object")
    add_model_options(talk)
    add_server_options(talk, default=None)
    talk.set_defaults(run=run_talk)


def run_chat(args: argparse.Namespace) -> int:
    """Converses in text until the input ends."""
    config = settings(args)
    check_task(config, args.to)
    check_typed(config.language)
    return asyncio.run(_chat(args, config))


def run_talk(args: argparse.Namespace) -> int:
    """Converses by voice until Ctrl-C."""
    if args.list_devices:
        return _list_devices(args)
    if args.url is not None:
        return talk_elsewhere.run(args, (_device(args.input), _device(args.output)))
    config = settings(args)
    check_task(config, args.to)
    return asyncio.run(_talk(args, config))


async def _chat(args: argparse.Namespace, config: "AgentConfig") -> int:
    from agent.core.turn import TurnMachine
    from agent.opening import checked_languages, opened
    from agent.order import ArrivalOrder
    from agent.recordings.replay import ReplayResult, TurnCollector
    from agent.session import run_session

    async with AsyncExitStack() as stack:
        check = partial(checked_languages, choice=config.language, reply_language=args.to, speech=False)
        there = await stack.enter_async_context(
            opened(config, [config.task], spoken=False, heard=False, typed=True, check=check)
        )
        languages, to = check(there.worker.models)
        options = there.turn_options(languages, to, session=token_hex())
        began = time.monotonic()
        order = ArrivalOrder(lambda: int((time.monotonic() - began) * 16_000))
        parts, result = there.parts(), ReplayResult(config.bundle)
        typing = _Typing(order, quiet=args.json)
        listeners: list[Listener] = [typing, TurnCollector(result, parts.metrics)]
        if args.record or config.record:
            listeners.append(recorder(there, options, stack))
        await run_session(typing.source(), order, TurnMachine(options), parts, listeners)
    if args.json:
        print_json(result.as_json())
    return FAILED if result.failed else OK


class _Typing:
    """Lines of the terminal as inputs, one turn at a time; replies as lines."""

    def __init__(self, order: "ArrivalOrder", *, quiet: bool) -> None:
        self._order = order
        self._quiet = quiet
        self._answered = asyncio.Event()
        self._prompt = sys.stdin.isatty() and sys.stdout.isatty()

    async def source(self) -> AsyncGenerator["AudioFrame", None]:
        """A source without sound, which ends when the typing does."""
        from agent.core.inputs import TypedText

        if self._prompt:
            print("Type a sentence; Ctrl-D ends.")
        async with typed_lines() as lines:
            self._show_prompt()
            async for line in lines:
                if line.strip():
                    self._answered.clear()
                    await self._order.command(TypedText(0, line))
                    await self._answered.wait()
                self._show_prompt()
        if self._prompt:
            print()
        no_sound: tuple[AudioFrame, ...] = ()
        for frame in no_sound:
            yield frame

    def _show_prompt(self) -> None:
        if self._prompt:
            print("› ", end="", flush=True)

    async def on_input(self, item: "Input") -> None:
        """Typed lines are on the screen already."""

    async def on_event(self, event: "DomainEvent") -> None:
        """Prints replies."""
        from agent.core.events import ReplySentence, TurnEnded, Warned

        if isinstance(event, Warned):
            warn(event.message)
        elif isinstance(event, ReplySentence) and not self._quiet:
            print(event.text, flush=True)
        elif isinstance(event, TurnEnded):
            self._answered.set()


@asynccontextmanager
async def typed_lines() -> AsyncIterator[AsyncIterator[str]]:
    """Lines of stdin. Read by a daemon thread, so that Ctrl-C never waits for someone to press Return."""
    from agent.channel import Channel, ChannelClosed
    from agent.inference.models import MAX_TEXT_CHARS

    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    pieces: Channel[bytes] = Channel(16, "block")

    def read() -> None:
        # os.read, not sys.stdin: a thread inside the latter would hold a lock that the exit needs.
        with suppress(OSError, RuntimeError, ChannelClosed, CancelledError):  # nobody reads any more
            while piece := os.read(descriptor, 65_536):
                asyncio.run_coroutine_threadsafe(pieces.send(piece), loop).result()
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(pieces.close)

    async def lines() -> AsyncIterator[str]:
        rest = b""
        async for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
            if len(rest) > 4 * MAX_TEXT_CHARS:
                raise TextInputError(f"a line has more than {MAX_TEXT_CHARS} characters; split it")
        if rest:
            yield rest.decode(errors="replace")

    threading.Thread(target=read, name="noema-stdin", daemon=True).start()
    try:
        yield lines()
    finally:
        pieces.close()


async def _talk(args: argparse.Namespace, config: "AgentConfig") -> int:
    from agent.core.turn import TurnMachine
    from agent.loudspeaker import Loudspeaker
    from agent.opening import checked_languages, opened
    from agent.order import ArrivalOrder
    from agent.session import run_session
    from agent.terminal import Screen
    from audio.playback import Playback
    from audio.source import Microphone

    spoken = not args.text and config.task != "transcribe"
    async with AsyncExitStack() as stack:
        # Devices first: a missing microphone should not cost the time to load the models.
        microphone = await stack.enter_async_context(Microphone(_device(args.input)))
        playback = await stack.enter_async_context(Playback(_device(args.output))) if spoken else None
        check = partial(checked_languages, choice=config.language, reply_language=args.to, speech=True)
        there = await stack.enter_async_context(opened(config, [config.task], spoken=spoken, live=True, check=check))
        languages, to = check(there.worker.models)
        options = _duplex(there.turn_options(languages, to, live=True, session=token_hex()), headphones=args.headphones)
        order, parts = ArrivalOrder(), there.parts()
        stack.callback(_tell_dropped, microphone)
        from lcm.space.languages import few  # not before the devices: it imports torch

        print(f"Listening to {few(languages)}. Ctrl-C ends.", flush=True)
        screen = stack.enter_context(Screen(parts.metrics))
        listeners: list[Listener] = [screen]
        if args.record or config.record:
            listeners.append(recorder(there, options, stack))
        if playback is None:
            await run_session(microphone.frames(), order, TurnMachine(options), parts, listeners)
            return OK
        loudspeaker = Loudspeaker(playback)
        async with asyncio.TaskGroup() as tasks:
            report = tasks.create_task(loudspeaker.report(order.command), name="playback-position")
            await run_session(microphone.frames(), order, TurnMachine(options), parts, [*listeners, loudspeaker])
            report.cancel()
    return OK


def _tell_dropped(microphone: "Microphone") -> None:
    if microphone.dropped_frames:
        warn(f"{20 * microphone.dropped_frames} ms of the microphone were lost: the machine was too slow")


def _duplex(options: "TurnOptions", *, headphones: bool) -> "TurnOptions":
    from dataclasses import replace

    return replace(options, half_duplex=not headphones, interruptible=headphones)


def _device(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


def _list_devices(args: argparse.Namespace) -> int:
    from audio.devices import list_devices

    devices = list_devices()
    if args.json:
        from dataclasses import asdict

        print_json({"devices": [asdict(device) for device in devices]})
        return OK
    for device in devices:
        marks = " (default microphone)" * device.is_default_input
        marks += " (default loudspeaker)" * device.is_default_output
        print(f"{device.index:3d}  {device.inputs} in, {device.outputs} out  {device.name}{marks}")
    if not devices:
        print("no sound devices; `noema replay FILE` works without")
    return OK
