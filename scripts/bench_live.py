"""Live sessions under load: callers in processes of their own speak in real time to one server over loopback.

Receives how many callers; gives, for each number of them, how long they waited for the first sound of a reply (from
the last sample of speech, and from the end of the hangover), how fast an interruption took hold, how late the
server's event loop ran, what memory it took and what gave way; and what speculation hides, costs and discards. Waits
are measured by the callers, on their own clock; what speculation hides is the share of the stages' time, as the
server tells it, that was over by the end of the hangover. How much is discarded depends on the speakers: these halt
for 260 ms in seven sentences of eight.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from agent.metrics import percentile
from audio.files import write_audio
from audio.frames import VOICE_RATE
from audio.voice import Voice
from scripts.server_process import ServerProcess, serving

UTTERANCES = (
    ("Can you tell me", "where the station is?"),
    ("I would like", "a cup of coffee."),
    ("My brother", "is waiting outside."),
    ("I need a doctor.",),
    ("We have", "no time left", "for that."),
    ("Do you know", "what time it is?"),
    ("The weather", "is very nice today."),
    ("She lost her keys", "at the beach."),
)
"""Each a sentence, cut where the speaker halts"""
PAUSE_MS = 260
"""Silence within a sentence: longer than the soft pause, shorter than any hangover"""
CALLERS_A_PROCESS = 8
REPLIES = 100
"""Of all callers together, at least: fewer have no 95th percentile"""
EVERY_S = 8.0
"""From turn to turn where two calls have to be the same samples: no reply is as long"""
_SILENCE = 0.01
BUSY = 0.8
"""Share of a core beyond which what comes has to wait"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many, how long."""
    parser.add_argument("--callers", default="1,4,8,16,32", metavar="N,…", help="default: 1,4,8,16,32")
    parser.add_argument("--turns", type=int, default=12, help="of each caller, at least (default: 12)")
    parser.add_argument("--replies", type=int, default=REPLIES, help=f"of all callers, about (default: {REPLIES})")
    parser.add_argument("--bundle", default="mini")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    numbers = [int(number) for number in args.callers.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        asyncio.run(_speak(folder))
        loads = {}
        with serving(folder, _settings(args.bundle, speculation=True)) as server:
            _load(server, folder, 1, "--turns", "2")  # warms up
            for number in numbers:
                turns = max(args.turns, -(-args.replies // number))
                load = _load(server, folder, number, "--turns", str(turns), "--interrupt-every", "3")
                loads[str(number)] = _figures(load)
        for figures in loads.values():
            figures["gives_way"] = _gives_way(figures, next(iter(loads.values())))
        speculation = {}
        for name, on in (("off", False), ("on", True)):
            with serving(folder, _settings(args.bundle, speculation=on)) as server:
                _load(server, folder, 1, "--turns", "2")
                manner = ("--turns", str(2 * args.turns), "--every-s", str(EVERY_S))
                speculation[name] = _load(server, folder, 1, *manner)
    return {"benchmark": "live", "bundle": args.bundle, "callers": loads, "speculation": _compared(**speculation)}


async def _speak(folder: Path) -> None:
    """The utterances, spoken by our own voice, each in another timbre."""
    timbres = (None, "f2", "m3", "f4", "m1", "f1", "m7", "f3")
    async with Voice() as voice:
        for number, (pieces, timbre) in enumerate(zip(UTTERANCES, timbres, strict=True)):
            spoken = [_trimmed(await voice.synthesize(piece, "eng", variant=timbre)) for piece in pieces]
            pause = np.zeros(VOICE_RATE * PAUSE_MS // 1000, np.float32)
            sound = np.concatenate([part for piece in spoken for part in (pause, piece)][1:])
            write_audio(folder / f"{number}.wav", (0.5 * sound).astype(np.float32), VOICE_RATE)


def _trimmed(sound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without the silence that the voice puts around a sentence."""
    loud = np.flatnonzero(np.abs(sound) > _SILENCE)
    return sound[loud[0] : loud[-1] + 1]


def _settings(bundle: str, *, speculation: bool) -> dict[str, Any]:
    return {"bundle": bundle, "server": {"max_sessions": 64}, "conversation": {"speculation": speculation}}


def _lag_buckets(server: ServerProcess) -> dict[float, float]:
    """How often the loop was late by at most so many seconds, since the start."""
    name = "noema_loop_lag_seconds_bucket"
    return {float(key.split('"')[1]): value for key, value in server.metrics().items() if key.startswith(name)}


def _load(server: ServerProcess, folder: Path, callers: int, *manner: str) -> dict[str, Any]:
    """So many callers at once, and what they and the machine say about it."""
    cpu, loop_cpu, lag, began = server.cpu_s(), server.loop_cpu_s(), _lag_buckets(server), time.monotonic()
    processes = [
        subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "scripts.live_caller",
                    f"{server.realtime}?model=noema",
                    str(folder),
                ),
                *("--callers", str(min(CALLERS_A_PROCESS, callers - first)), "--first", str(first)),
                *manner,
            ],
            stdout=subprocess.PIPE,
        )
        for first in range(0, callers, CALLERS_A_PROCESS)
    ]
    told = [json.loads(process.communicate()[0]) for process in processes]
    wall = time.monotonic() - began
    now = _lag_buckets(server)
    return {
        "told": [caller for process in told for caller in process["callers"]],
        "callers_cpu": sum(process["cpu_s"] for process in told) / wall,
        "server_cpu_s": server.cpu_s() - cpu,
        "server_cpu": (server.cpu_s() - cpu) / wall,
        "loop_cpu": (server.loop_cpu_s() - loop_cpu) / wall,
        "lag_ms": _quantile({edge: now[edge] - lag.get(edge, 0.0) for edge in now}, 0.99),
        "rss_mb": server.rss_mb(),
    }


def _quantile(buckets: dict[float, float], share: float) -> float | None:
    """Of a cumulative histogram of seconds, in milliseconds, straight lines between the edges."""
    total = max(buckets.values(), default=0.0)
    below, reached = 0.0, 0.0
    for edge, count in sorted(buckets.items()):
        if total and count >= share * total:
            part = (share * total - reached) / max(count - reached, 1e-9)
            return round((below + part * (min(edge, 10.0) - below)) * 1000, 2)
        below, reached = edge, count
    return None


def _all(load: dict[str, Any], name: str) -> list[Any]:
    return [value for caller in load["told"] for value in caller[name]]


def _sum(load: dict[str, Any], name: str) -> int:
    return sum(caller[name] for caller in load["told"])


def _figures(load: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        figures[f"after_hangover_{name}_ms"] = _rounded(percentile(_all(load, "after_hangover_ms"), share))
        figures[f"after_speech_{name}_ms"] = _rounded(percentile(_all(load, "after_speech_ms"), share))
        figures[f"barge_in_{name}_ms"] = _rounded(percentile(_all(load, "barge_in_ms"), share))
    failures = _all(load, "failures")
    return figures | {
        "turns": _sum(load, "turns"),
        "replies": len(_all(load, "after_hangover_ms")),
        "interruptions": len(_all(load, "barge_in_ms")),
        "late_deltas": _sum(load, "late_deltas"),
        "loop_lag_p99_ms": load["lag_ms"],
        "rss_mb": load["rss_mb"],
        "server_cpu": round(load["server_cpu"], 2),
        "loop_cpu": round(load["loop_cpu"], 2),
        "callers_cpu": round(load["callers_cpu"], 2),
        "callers_late_p99_ms": _rounded(percentile(_all(load, "sent_late_ms"), 0.99)),
        "failed": len(failures),
        "failures": failures[:5],
    }


def _gives_way(figures: dict[str, Any], one: dict[str, Any]) -> list[str]:
    """What is beyond its bound, causes before effects. Empty: nothing."""
    cores = len(os.sched_getaffinity(0))
    used, model = figures["server_cpu"] + figures["callers_cpu"], figures["server_cpu"] - figures["loop_cpu"]
    beyond = {
        f"the callers themselves send late ({figures['callers_late_p99_ms']} ms)": figures["callers_late_p99_ms"] > 20,
        f"the event loop's thread ({figures['loop_cpu']} of one core)": figures["loop_cpu"] > BUSY,
        f"the model's and the voice's threads ({model:.2f} of one core)": model > BUSY,
        f"the machine's {cores} cores ({used:.2f} used)": used > BUSY * cores,
        "the event loop is late": figures["loop_lag_p99_ms"] > 20,
        "replies come late": figures["after_hangover_p95_ms"] > 2.5 * one["after_hangover_p95_ms"],
        "interruptions take hold late": (figures["barge_in_p95_ms"] or 0) > 100,
        "turns fail": figures["failed"] > 0,
    }
    return [what for what, is_beyond in beyond.items() if is_beyond]


def _compared(off: dict[str, Any], on: dict[str, Any]) -> dict[str, Any]:
    """What speculation hides of the work, how often it was in vain, and what that cost."""
    used, discarded = _sum(on, "speculated"), _sum(on, "discarded")
    work = sum(_all(on, "stages_ms"))
    return {
        "off": _figures(off),
        "on": _figures(on),
        "hidden": round(1 - sum(_all(on, "waited_ms")) / work, 3) if work else None,
        "discarded": round(discarded / max(used + discarded, 1), 3),
        "extra_cpu": round(on["server_cpu_s"] / off["server_cpu_s"] - 1, 3),
        "same_replies": _all(on, "replies") == _all(off, "replies"),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
