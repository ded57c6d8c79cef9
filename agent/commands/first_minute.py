"""The first minute: what `./scripts/run` does without arguments.

Plays the bundled sample through the agent, first as live interpretation, then as a conversation, drawn and
heard as it happens; then serves the page on which one talks to it oneself.
"""

import argparse
import asyncio
import errno
import json
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_model_options, settings, warn
from agent.errors import OK
from agent.wording import as_typed

if TYPE_CHECKING:
    from agent.config import AgentConfig
    from agent.core.events import Task
    from agent.core.inputs import SettingsChanged
    from agent.opening import Opened
    from agent.room import Room

NAME = "first-minute"
SAMPLE = Path(__file__).parents[1] / "samples" / "first_words.opus"
_SCENES: "tuple[tuple[Task, str], ...]" = (
    ("translate", "Live interpretation: each is heard in the other's language."),
    ("converse", "A conversation: the agent answers, each in their own language."),
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommand, which `noema --help` does not list."""
    parser = commands.add_parser(NAME, description="Play the bundled sample through the agent, then serve.")
    parser.add_argument("--speed", choices=("1", "max"), help="default: 1 when someone watches")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the sound goes when it cannot be played")
    parser.add_argument("--no-serve", action="store_true", help="end after the sample")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plays both scenes, then serves."""
    from agent.terminal import can_draw

    config = settings(args)
    speed = 1.0 if (args.speed or ("1" if can_draw() else "max")) == "1" else None
    scenes = _possible(config)
    asyncio.run(_play(config, scenes, speed, args.out))
    if args.no_serve:
        return OK
    from agent.cli import main

    print(as_typed("\nNow you: open the page and talk, or type. (`noema --help` has the rest.)"))
    chosen = ["--config", str(args.config)] if args.config else []
    for name in ("bundle", "device", "precision", "backend"):
        chosen += [f"--{name}", getattr(config, name)]
    if not _is_free(config.server.host, config.server.port):
        warn(f"port {config.server.port} is taken, so another")
        chosen += ["--port", "0"]
    return main(["serve", *chosen])


def _is_free(host: str, port: int) -> bool:
    """Whether a server could listen there; what else may be wrong, it says itself."""
    try:
        with socket.create_server((host, port)):
            return True
    except OSError as error:
        return error.errno != errno.EADDRINUSE


def _possible(config: "AgentConfig") -> "tuple[tuple[Task, str], ...]":
    """A bundle without a model to think with still interprets."""
    from lcm.bundle import Bundle

    parts = set(Bundle.open(config.bundle).parts)
    if config.thinker.name == "openai" or parts >= {config.thinker.variant, "bank"}:
        return _SCENES
    warn(f"the bundle '{config.bundle}' cannot converse yet (it has {', '.join(sorted(parts))}); it interprets")
    return _SCENES[:1]


async def _play(
    config: "AgentConfig", scenes: "tuple[tuple[Task, str], ...]", speed: float | None, out: Path | None
) -> None:
    from agent.opening import checked_languages, opened

    check = partial(checked_languages, choice=config.language, reply_language=None, speech=True)
    async with AsyncExitStack() as stack:
        tasks = [task for task, _ in scenes]
        there = await stack.enter_async_context(opened(config, tasks, spoken=True, check=check))
        for task, title in scenes:
            print(f"\n{title}\n")
            await _scene(there, task, speed, out)


async def _scene(there: "Opened", task: "Task", speed: float | None, out: Path | None) -> None:
    from agent.recordings.replay import ReplayResult, replay_file
    from agent.room import open_room
    from agent.terminal import Screen

    language, script = _script(task)
    parts = there.parts()
    options = there.turn_options((language,), script[0].reply_language, task)
    room: Room
    async with open_room(out, f"noema-{task}.wav", live=speed is not None) as room:
        with Screen(parts.metrics) as screen:
            await replay_file(
                SAMPLE,
                speed=speed,
                options=options,
                latency=there.config.virtual_latency.latency(),
                parts=parts,
                listeners=[screen, room],
                result=ReplayResult(there.config.bundle),
                script=script,
            )
            await room.finish()
    if room.path is not None:
        warn(f"the sound is in {room.path} (no loudspeaker was used)")


def _script(task: "Task") -> "tuple[str, list[SettingsChanged]]":
    """Who speaks when, from the sample's notes: in a real session the client says so, or nobody needs to."""
    from agent.core.inputs import SettingsChanged

    segments = json.loads(SAMPLE.with_suffix(".json").read_text(encoding="utf-8"))["segments"]
    spoken = list(dict.fromkeys(segment["language"] for segment in segments))
    script = []
    for segment in segments:
        language = segment["language"]
        other = next((name for name in spoken if name != language), language)
        place = max(0, segment["start_ms"] - 400) * 16
        script.append(SettingsChanged(place, language, other if task == "translate" else None, task))
    return segments[0]["language"], script
