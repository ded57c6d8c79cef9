"""Benchmarks: `python -m scripts.bench NAME --json`; the last line on stdout is one JSON object.

Figures taken on a busy machine mean nothing, so a busy machine is refused (or waited for). Each benchmark is a
module of its own in this folder; the registry below is all that ties them together.
"""

import argparse
import importlib
import json
import os
import sys
import time

from audio.errors import AudioError
from lcm.errors import LcmError

BENCHMARKS = {
    "context": "scripts.bench_context",
    "echo": "scripts.bench_echo",
    "lcm": "scripts.bench_lcm",
    "live": "scripts.bench_live",
    "replay": "scripts.bench_replay",
    "soak": "scripts.bench_soak",
    "space": "scripts.bench_space",
    "thinking": "scripts.bench_thinking",
    "vad": "scripts.bench_vad",
}
"""Name → module with `add_options(parser)` and `run(args) -> dict`."""
IDLE_LOAD_PER_CORE = 0.35
POLL_S = 5.0


def main() -> int:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__.splitlines()[0])
    names = parser.add_subparsers(metavar="NAME", required=True, dest="name")
    for name, module in BENCHMARKS.items():
        bench = names.add_parser(name, help=(importlib.import_module(module).__doc__ or "").splitlines()[0])
        bench.add_argument("--json", action="store_true", help="print only the JSON object")
        bench.add_argument("--force", action="store_true", help="measure although the machine is busy")
        bench.add_argument("--wait", type=float, default=0.0, metavar="S", help="wait so long for it to become idle")
        importlib.import_module(module).add_options(bench)
    args = parser.parse_args()
    load = idle_load(args.wait)
    if load is not None and not args.force:
        print(
            f"bench: the machine is busy (load {load:.1f} on {os.cpu_count()} cores); "
            "stop what else runs, or use --wait 600 or --force",
            file=sys.stderr,
        )
        return 1
    try:
        result = importlib.import_module(BENCHMARKS[args.name]).run(args)
    except (AudioError, LcmError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    result |= {"load_before": os.getloadavg()[0] if load is None else load, "forced": load is not None}
    if not args.json:
        print(json.dumps(result, indent=1))
    print(json.dumps(result))
    return 0


def idle_load(wait_s: float) -> float | None:
    """None once the machine is idle; its load if it is still busy after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while (load := os.getloadavg()[0]) > IDLE_LOAD_PER_CORE * (os.cpu_count() or 1):
        if time.monotonic() >= deadline:
            return load
        time.sleep(POLL_S)
    return None


if __name__ == "__main__":
    sys.exit(main())
