"""`noema replay`: recordings through the agent, files and recorded sessions alike."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands.options import (
    add_conversation_options,
    add_json_option,
    add_model_options,
    check_task,
    print_json,
    settings,
    subparser,
    warn,
)
from agent.commands.recorder import recorder
from agent.errors import FAILED, OK, OutputError, UsageError, exit_code, first_known, one_line

if TYPE_CHECKING:
    from agent.config import AgentConfig, Backend, Precision, ThinkerConfig
    from agent.core.events import DomainEvent, Task
    from agent.core.inputs import Input
    from agent.inference.models import Models
    from agent.metrics import Metrics
    from agent.opening import Opened
    from agent.recordings.recording import SessionInfo
    from agent.recordings.replay import EventComparer, ReplayResult, ReplayTurn
    from agent.recordings.report import ReportCollector
    from agent.session import Listener

_EXAMPLES = """
noema replay talk.mp3
noema replay talk.mp3 --task translate --to fra --out replies --report talk.html
noema replay meeting.opus --language eng,fra --json
noema replay 20260101-120000 --report talk.html
noema replay ~/.local/share/noema/sessions/20260101-120000 --recompute
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommand."""
    parser = subparser(commands, "replay", "run recordings through the agent and show what it does", _EXAMPLES)
    parser.add_argument(
        "recordings",
        nargs="+",
        type=Path,
        metavar="RECORDING",
        help="a sound file, the folder of a session, or its name in `noema sessions list`",
    )
    add_conversation_options(parser)
    parser.add_argument("--text", action="store_true", help="reply in text only")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=None,
        metavar="1|max",
        help="1: as it was spoken; max: at once (default)",
    )
    parser.add_argument("--vad", choices=("webrtc", "silero"), help="which detector listens")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write reply audio and events here")
    parser.add_argument("--report", type=Path, metavar="F.html", help="write a report that opens in a browser")
    parser.add_argument("--against", type=Path, metavar="EVENTS.jsonl", help="compare the events with these")
    parser.add_argument("--recompute", action="store_true", help="recorded session: run the models again")
    parser.add_argument("--record", action="store_true", help="also keep the replay as a session")
    add_json_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


_SLOWEST = 0.01


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not _SLOWEST <= speed <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is no speed: use max, 1, or another factor")
    return speed


def run(args: argparse.Namespace) -> int:
    """Replays everything asked for; the exit code is that of the worst."""
    if args.against and len(args.recordings) > 1:
        raise UsageError("--against compares one recording; give one")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        written = _events_file(args.out, args.recordings[0].stem)
        if args.against and written.resolve() == args.against.resolve():
            raise UsageError(f"--against {args.against}: --out would write it anew; choose another folder")
    if args.report is not None:
        _check_writable(args.report)
    return asyncio.run(_Replays(args, settings(args)).run())


def _check_writable(path: Path) -> None:
    """Before the work, not after it."""
    existed = path.exists()
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    if not existed:
        path.unlink()


def _events_file(out: Path, name: str) -> Path:
    return out / f"{name}.events.jsonl"


class _Replays:
    """All replays of one call; models are loaded once, and only if a recording needs them."""

    def __init__(self, args: argparse.Namespace, config: "AgentConfig") -> None:
        self._args = args
        self._config = config
        self._opened: dict[tuple[str, Precision, Backend, Task, ThinkerConfig], Opened] = {}
        self._names: set[str] = set()

    async def run(self) -> int:
        """Replays one recording after the other; a bad one does not keep the others from their turn."""
        worst = OK
        async with AsyncExitStack() as stack:
            for path in self._args.recordings:
                try:
                    worst = max(worst, await self._one(_found(path), stack))
                except Exception as error:  # noqa: BLE001 - the boundary between recordings
                    known = first_known(error)
                    code = exit_code(known)
                    if code is None or len(self._args.recordings) == 1:
                        raise known from None
                    worst = max(worst, code)
                    warn(one_line(known))
                    if self._args.json:
                        print_json({"recording": str(path), "error": one_line(known)})
        return worst

    async def _one(self, path: Path, stack: AsyncExitStack) -> int:
        is_session = _is_session(path)
        async with AsyncExitStack() as closing:
            outputs = _Outputs(self._args, path, self._free_name(path), closing)
            if is_session:
                await self._session(path, outputs, stack)
            else:
                await self._file(path, outputs, stack, closing)
        outputs.finish()
        return FAILED if outputs.result.failed else OK

    def _free_name(self, path: Path) -> str:
        """A name for what is written: two recordings of the same name do not share it."""
        name, number = path.stem, 1
        while name in self._names:
            number += 1
            name = f"{path.stem}-{number}"
        self._names.add(name)
        return name

    async def _open(
        self, config: "AgentConfig", stack: AsyncExitStack, check: Callable[["Models"], object] = lambda models: None
    ) -> "Opened":
        from agent.opening import opened

        models = (config.bundle, config.precision, config.backend, config.task, config.thinker)
        there = self._opened.get(models)
        if there is None:
            spoken = not self._args.text and config.task != "transcribe"
            there = await stack.enter_async_context(opened(config, [config.task], spoken=spoken, check=check))
            self._opened[models] = there
        return there

    async def _file(self, path: Path, outputs: "_Outputs", stack: AsyncExitStack, closing: AsyncExitStack) -> None:
        from agent.opening import checked_languages
        from agent.recordings.replay import replay_file

        if self._args.recompute:
            raise UsageError(f"{path}: --recompute needs a recorded session; make one with --record")
        check_task(self._config, self._args.to)
        config = self._config
        check = partial(checked_languages, choice=config.language, reply_language=self._args.to, speech=True)
        there = await self._open(config, stack, check)
        languages, to = check(there.worker.models)
        options = there.turn_options(languages, to)
        parts = there.parts()
        outputs.follow(config.bundle, parts.metrics)
        if self._args.record:
            outputs.listeners.append(recorder(there, options, closing))
        await replay_file(
            path,
            speed=self._args.speed,
            options=options,
            latency=config.virtual_latency.latency(),
            parts=parts,
            listeners=outputs.listeners,
            result=outputs.result,
        )

    async def _session(self, path: Path, outputs: "_Outputs", stack: AsyncExitStack) -> None:
        import time

        from agent.metrics import Metrics
        from agent.recordings.recorded import is_complete, read_event_lines, read_info
        from agent.recordings.recording import finalise_abandoned
        from agent.recordings.replay import EventComparer, Recomputer, replay_session

        fixed = ("to", "language", "task", "text", "thinker", "variant")
        if any(getattr(self._args, name) for name in fixed):
            raise UsageError(
                f"{path}: a recorded session keeps its languages, task and thinker; leave those options out"
            )
        finalise_abandoned(path)
        info, events = read_info(path), path / "events.jsonl"
        outputs.follow(info.bundle, Metrics())
        outputs.compare(EventComparer(read_event_lines(events), str(events), complete=is_complete(path)))
        recomputer = None
        if self._args.recompute:
            recomputer = Recomputer((await self._open(self._as_recorded(info), stack)).worker)
            recomputer.check_space(info.space_id)
        start = time.perf_counter()
        await replay_session(path, speed=self._args.speed, listeners=outputs.listeners, recomputer=recomputer)
        outputs.result.wall_ms = (time.perf_counter() - start) * 1000
        if recomputer is not None:
            outputs.remarks.append(
                f"{recomputer.compared} answers recomputed, lowest cosine {recomputer.lowest_cosine:.6f}"
            )

    def _as_recorded(self, info: "SessionInfo") -> "AgentConfig":
        """The settings with what a session was recorded with on top."""
        thinker = info.thinker.model_copy(update={"openai": self._config.thinker.openai})
        recorded = info.options
        spoken = ",".join(recorded.candidates or (recorded.language,))
        given: dict[str, Any] = {"language": spoken, "task": recorded.task, "thinker": thinker}
        given |= {name: getattr(self._args, name) or getattr(info, name) for name in ("bundle", "precision", "backend")}
        return self._config.model_copy(update=given)


class _Outputs:
    """What one replay leaves behind: turns on the screen, files in --out, a report, comparisons."""

    def __init__(self, args: argparse.Namespace, path: Path, name: str, closing: AsyncExitStack) -> None:
        self._args = args
        self._path = path
        self._name = name
        self._closing = closing
        self._comparers: list[EventComparer] = []
        self._report: ReportCollector | None = None
        self.listeners: list[Listener] = []
        self.remarks: list[str] = []

    def follow(self, bundle: str, metrics: "Metrics") -> None:
        """Opens everything that listens."""
        from agent.recordings.recorded import read_event_lines
        from agent.recordings.replay import EventComparer, EventWriter, ReplayResult, TurnCollector

        self.result = ReplayResult(bundle)
        out: Path | None = self._args.out
        if out is not None:
            writer = EventWriter(_events_file(out, self._name))
            self._closing.callback(writer.close)
            self.listeners.append(writer)
        self.listeners.append(TurnCollector(self.result, metrics, out / self._name if out else None))
        if self._args.against is not None:
            self.compare(EventComparer(read_event_lines(self._args.against), str(self._args.against)))
        if self._args.report is not None:
            from agent.recordings.report import ReportCollector

            self._report = ReportCollector()
            self._closing.callback(self._report.close)
            self.listeners.append(self._report)
        if not self._args.json:
            print(self._path, flush=True)
            self.listeners.append(_TurnPrinter(self.result))

    def compare(self, comparer: "EventComparer") -> None:
        """Compares the events with others as they come."""
        self._comparers.append(comparer)
        self.listeners.append(comparer)

    def finish(self) -> None:
        """Prints and writes what can only be told at the end."""
        for warning in self.result.warnings:
            warn(f"{self._path.name}: {warning}")
        compared = {Path(one.name).resolve(): f"{one.finish()} events, as in {one.name}" for one in self._comparers}
        self.remarks[:0] = reversed(compared.values())  # a session's own events may be those of --against
        if self._report is not None:
            from agent.recordings.report import write_report

            report: Path = self._args.report
            if len(self._args.recordings) > 1:
                report = report.with_name(f"{report.stem}-{self._name}{report.suffix}")
            write_report(report, self._path.name, self.result, self._report)
            self.remarks.append(f"report: {report}")
        if self._args.json:
            print_json(self.result.as_json())
            return
        result = self.result
        factor = result.audio_ms / result.wall_ms if result.wall_ms else 0.0
        if not result.turns:
            print("  no speech was heard")
        print(f"  {result.audio_ms / 1000:.1f} s of sound, {factor:.3g} times as fast as spoken")
        for remark in self.remarks:
            print(f"  {remark}")


def _found(path: Path) -> Path:
    """What is no path here may be the name of a session."""
    from agent.recordings.recording import sessions_folder

    named = sessions_folder() / path.name
    return named if path.parent == Path() and not path.exists() and named.is_dir() else path


def _is_session(path: Path) -> bool:
    if not path.exists():
        raise UsageError(f"{path}: no such file; give a sound file or the folder of a session")
    return path.is_dir()


class _TurnPrinter:
    """A listener that prints each turn once it has ended: whoever stops a replay has seen what it did."""

    def __init__(self, result: "ReplayResult") -> None:
        self._result = result
        self._printed = 0

    async def on_input(self, item: "Input") -> None:
        """Inputs are not turns."""

    async def on_event(self, event: "DomainEvent") -> None:
        """The turn collector stands before this in the row of listeners."""
        for turn in self._result.turns[self._printed :]:
            _print_turn(turn)
        self._printed = len(self._result.turns)


def _print_turn(turn: "ReplayTurn") -> None:
    content = turn.as_json()
    label = "heard (a paraphrase)" if turn.paraphrase else "typed"
    if turn.language_probability is not None:
        label = f"heard ({turn.language} {turn.language_probability * 100:.0f} %, a paraphrase)"
    print(f"  {content['start_ms'] / 1000:7.2f}-{content['end_ms'] / 1000:.2f} s  {label}: {turn.heard}")
    print(f"  {'':18}reply ({turn.reply_language}): {content['reply']}")
    measured = [f"{stage} {ms:.0f}" for stage, ms in turn.latency_ms.items() if ms is not None]
    if measured:
        print(f"  {'':18}ms: {', '.join(measured)}")
    if turn.reply_audio:
        print(f"  {'':18}{turn.reply_audio}")
    sys.stdout.flush()
