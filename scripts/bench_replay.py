"""The whole chain on recordings: real time factor, latency per stage, start-up, memory, lag of the event loop.

Receives sound files (by default the bundled sample) and gives one dictionary. Nothing is stubbed: detector,
models and voice are those of `noema replay`.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agent.commands.first_minute import SAMPLE
from agent.config import AgentConfig, load_config
from agent.metrics import peak_rss_mb, summary
from agent.opening import Opened, opened
from agent.recordings.replay import ReplayResult, TurnCollector, replay_file

STARTS = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which recordings, and how often."""
    parser.add_argument("recordings", nargs="*", type=Path, default=[SAMPLE], help="default: the bundled sample")
    parser.add_argument("--bundle", help="mini, or a folder (default: as in the settings)")
    parser.add_argument("--task", default="converse", choices=("converse", "translate", "transcribe"))
    parser.add_argument("--to", help="language of the reply")
    parser.add_argument("--repeat", type=int, default=5, help="runs after one that warms up (default: 5)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    config = load_config(None)
    changes = {"task": args.task} | ({"bundle": args.bundle} if args.bundle else {})
    result = asyncio.run(_measure(config.model_copy(update=changes), args))
    return {"benchmark": "replay", "help_s": _help_s(), **result}


async def _measure(config: AgentConfig, args: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    async with opened(config, [config.task], spoken=True) as there:
        ready_s = time.perf_counter() - start
        memory_loaded = peak_rss_mb()
        series: dict[str, list[float]] = {}
        audio_ms = wall_ms = 0.0
        for number in range(args.repeat + 1):
            for path in args.recordings:
                result, measured = await _replay(there, path, args.to)
                if result.failed:
                    raise SystemExit(f"bench: {path}: {result.warnings[0]}; a turn that fails is quick, and no figure")
                if number == 0:
                    continue
                audio_ms, wall_ms = audio_ms + result.audio_ms, wall_ms + result.wall_ms
                for name, values in measured.items():
                    series.setdefault(name, []).extend(values)
            if number == 0:
                memory_warm = peak_rss_mb()
    return {
        "bundle": config.bundle,
        "task": config.task,
        "real_time_factor": round(audio_ms / wall_ms, 2) if wall_ms else None,
        "turns": len(series.get("encode", [])),
        "latency_ms": summary(series),
        "models_and_voice_ready_s": round(ready_s, 2),
        "memory_mb": {"loaded": memory_loaded, "first_run": memory_warm, "peak": peak_rss_mb()},
        "audio_s": round(audio_ms / 1000, 1),
    }


async def _replay(there: Opened, path: Path, to: str | None) -> tuple[ReplayResult, dict[str, list[float]]]:
    config, parts, result = there.config, there.parts(), ReplayResult(there.config.bundle)
    await replay_file(
        path,
        speed=None,
        options=there.turn_options((config.language,), to),
        latency=config.virtual_latency.latency(),
        parts=parts,
        listeners=[TurnCollector(result, parts.metrics)],
        result=result,
    )
    return result, parts.metrics.series()


def _help_s() -> float:
    """The fastest of a few starts of `noema --help`: what is left is ours, not the machine's."""
    times = []
    for _ in range(STARTS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "agent", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return round(min(times), 3)
