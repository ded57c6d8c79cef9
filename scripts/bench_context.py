"""Time and memory against a document's length: encode, think, decode beside a token transformer of equal size.

Both read the same text and write equally many tokens, each in a process of its own, one process at a time, with the
same number of threads. `read`: N tokens are read and 64 written. `write`: one sentence is read and N tokens written.
What does not fit the budget is computed from what was measured, and marked as extrapolated.

Beside it stands the derived cost, which counts multiplications only: where one token at a time is written, a machine
waits for weights to come from memory, and may find the other side cheaper.
"""

import argparse
import importlib.util
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from scripts.context_costs import ConceptSizes, TokenSizes, crossing, crossing_of, equal_llama, fitted
from scripts.context_plot import draw_context
from scripts.context_process import ENOUGH_S, Spec

SIZES, MODES, SIDES = ("mini", "large", "two_tower"), ("read", "write"), ("concepts", "together", "tokens")
LENGTHS = (1_000, 3_162, 10_000, 31_623, 100_000)
_FIRST_S = 20.0
"""What a process may take whose series nobody has measured yet"""
_GROWS, _GROWS_MOST = 1.3, 2.0
"""The power of the length that time grows with: as long as one length alone is known, and at most"""
_SHORTEST = 100
"""tokens from which on the derived costs are compared"""
_ENOUGH_LENGTHS = 3
Figures = dict[str, Any]


def _lengths(text: str) -> list[int]:
    lengths = sorted({int(float(part)) for part in text.split(",")})
    if not lengths or lengths[0] < 1 or lengths[-1] > 1_000_000:
        raise argparse.ArgumentTypeError("from 1 to 1,000,000 tokens, as 1e3,1e4,1e5")
    return lengths


def add_options(parser: argparse.ArgumentParser) -> None:
    """Lengths, sizes, and how long it may take."""
    parser.add_argument("--lengths", type=_lengths, default=list(LENGTHS), metavar="N,N", help="tokens (1e3 … 1e5)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="of the concept model (all)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="what is long (both)")
    parser.add_argument("--ahead", type=int, default=64, metavar="N", help="tokens written after reading (%(default)s)")
    parser.add_argument("--sentence", type=int, default=20, metavar="N", help="tokens a concept, about (%(default)s)")
    parser.add_argument("--steps", type=int, default=40, metavar="S", help="of denoising a concept (%(default)s)")
    parser.add_argument("--chunk", type=int, default=0, metavar="N", help="tokens the transformer reads at once (all)")
    parser.add_argument("--budget", type=float, default=540.0, metavar="S", help="seconds in all, about (%(default)s)")
    parser.add_argument("--bundle", default="mini", help="whose space (%(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("runs/bench_context.png"), help="%(default)s")


@dataclass(slots=True)
class Series:
    """One side of one comparison, at growing lengths."""

    size: str
    mode: str
    side: str
    measured: dict[int, Figures] = field(default_factory=dict)
    took: dict[int, float] = field(default_factory=dict)
    """seconds of each process, loading and all rounds"""
    left: list[int] = field(default_factory=list)
    failed: str | None = None

    def expected_s(self) -> float:
        """How long the next process will take: to start, and for its rounds."""
        if not self.measured:
            return 0.0 if self.side == "concepts" else _FIRST_S  # whose size the others need
        lengths = sorted(self.measured)
        last = lengths[-1]
        grows = _GROWS
        if len(lengths) > 1:
            seen = math.log(self.seconds(last) / self.seconds(lengths[-2])) / math.log(last / lengths[-2])
            grows = min(_GROWS_MOST, max(_GROWS, seen))
        start_s = max(0.0, self.took[last] - self.measured[last]["rounds"] * self.seconds(last))
        return float(start_s + max(ENOUGH_S, self.seconds(last) * math.pow(self.left[0] / last, grows)))

    def seconds(self, length: int) -> float:
        """Of reading and writing."""
        return float(self.measured[length]["read_s"] + self.measured[length]["write_s"])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    sides = [side for side in SIDES if side != "tokens" or _has("transformers")]
    if "tokens" not in sides:
        print("bench: transformers is missing, so concepts alone: pip install 'noema[bench]'", file=sys.stderr)
    series = [
        Series(size, mode, side, left=list(args.lengths))
        for size in args.sizes
        for mode in args.modes
        for side in sides
        if side != "together" or mode == "write"
    ]
    measure(series, args)
    result = {
        "benchmark": "context",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "tokens_a_concept": args.sentence,
        "written_after_reading": args.ahead,
        "denoising_steps": args.steps,
        "sizes": {size: _compared([one for one in series if one.size == size], args) for size in args.sizes},
    }
    if not _has("matplotlib"):
        print("bench: matplotlib is missing, so no plot: pip install 'noema[train]'", file=sys.stderr)
    else:
        draw_context(result["sizes"], args.plot)
        result["plot"] = str(args.plot)
    return result


def measure(series: list[Series], args: argparse.Namespace) -> None:
    """The cheapest next process first, until none fits what is left of the budget."""
    deadline = time.monotonic() + args.budget
    with tqdm(total=sum(len(one.left) for one in series), desc="context", unit="point") as bar:
        while going := [one for one in series if one.left]:
            one = min(going, key=Series.expected_s)
            left_s = deadline - time.monotonic()
            if one.expected_s() > left_s or one.failed:
                bar.update(len(one.left))
                one.left.clear()
                continue
            length = one.left.pop(0)
            bar.set_postfix_str(f"{one.size} {one.mode} {one.side} {length:,}")
            _measure(one, length, _llama(series, one), max(left_s, _FIRST_S), args)
            bar.update()


def _measure(one: Series, length: int, llama: TokenSizes | None, limit_s: float, args: argparse.Namespace) -> None:
    spec = Spec(
        one.side, args.bundle, one.size, one.mode, length, args.ahead, args.sentence,
        asdict(llama) if llama and one.side == "tokens" else None, args.steps, args.chunk,
    )  # fmt: skip
    command = [sys.executable, "-m", "scripts.context_process", json.dumps(asdict(spec))]
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        one.failed = f"{length} tokens took longer than {limit_s:.0f} s"
        return
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}; out of memory?"])[-1]
        if not one.took:
            raise SystemExit(f"bench: {one.size} {one.mode} {one.side} at {length} tokens: {why}")
        one.failed = f"{length} tokens: {why}"
        return
    one.measured[length] = json.loads(done.stdout.splitlines()[-1])
    one.took[length] = time.monotonic() - start


def _llama(series: Iterable[Series], asked: Series) -> TokenSizes | None:
    """As large as the concept side of that size, which was measured first."""
    about = [f for one in series if one.size == asked.size and one.side == "concepts" for f in one.measured.values()]
    return equal_llama(about[0]["parameters"], about[0]["vocab"]) if about else None


def _compared(series: list[Series], args: argparse.Namespace) -> dict[str, Any]:
    """Everything of one size: sizes, each mode's figures, and where the sides cross."""
    abouts = {one.side: figures for one in series for figures in one.measured.values()}
    result: dict[str, Any] = {
        "parameters": {side: about["parameters"] for side, about in abouts.items()},
        "shapes": {side: about["sizes"] for side, about in abouts.items() if side != "together"},
    }
    for mode in args.modes:
        own = {one.side: one for one in series if one.mode == mode}
        figures = {side: _filled_up(one, args.lengths) for side, one in own.items()}
        result[mode] = {**figures, "derived": _derived(result["shapes"], mode, args)}
        if "tokens" in figures:
            result[mode]["crossing"] = {
                of: {side: _crossing(figures[side], figures["tokens"], of) for side in figures if side != "tokens"}
                for of in ("seconds", "peak_mb")
            }
        result[mode]["stopped"] = {side: one.failed for side, one in own.items() if one.failed}
    return result


def _filled_up(one: Series, lengths: list[int]) -> dict[str, Figures]:
    """By length; where nothing was measured, from the curve through what was, if that is three lengths at least."""
    rows: dict[str, Figures] = {}
    seconds: dict[float, float] = {n: one.seconds(n) for n in one.measured}
    for length in lengths:
        if length in one.measured:
            kept = {k: v for k, v in one.measured[length].items() if k not in {"sizes", "parameters", "vocab"}}
            rows[str(length)] = {"seconds": round(seconds[length], 3), **kept}
        elif len(seconds) >= _ENOUGH_LENGTHS:
            memory: dict[float, float] = {n: f["peak_mb"] for n, f in one.measured.items()}
            rows[str(length)] = {
                "seconds": round(fitted(seconds)(length), 3),
                "peak_mb": round(fitted(memory, (0, 1))(length), 1),
                "extrapolated": True,
            }
    return rows


def _crossing(concepts: Mapping[str, Figures], tokens: Mapping[str, Figures], of: str) -> Figures | None:
    """The length at which the two are equal; where they never are, who is cheaper throughout."""
    rows: list[dict[float, float]] = [{int(n): f[of] for n, f in side.items()} for side in (concepts, tokens)]
    shared = sorted(rows[0].keys() & rows[1].keys())
    if not shared:
        return None
    at = crossing(rows[0], rows[1])
    if at is None:
        return {"always_cheaper": "concepts" if rows[0][shared[0]] < rows[1][shared[0]] else "tokens"}
    beyond = min(n for n in shared if n >= at)
    guessed = any("extrapolated" in side[str(beyond)] for side in (concepts, tokens))
    return {"at_tokens": round(at), **({"extrapolated": True} if guessed else {})}


def _derived(shapes: Mapping[str, Any], mode: str, args: argparse.Namespace) -> Figures | None:
    """The ratio of the products that each side takes, tokens to concepts, and where it is 1."""
    if "tokens" not in shapes or "concepts" not in shapes:
        return None
    concepts, tokens = ConceptSizes(**shapes["concepts"]), TokenSizes(**shapes["tokens"])

    def lengths(n: float) -> tuple[float, float]:
        return (n, args.ahead) if mode == "read" else (args.sentence, n)

    def of_concepts(n: float) -> float:
        return concepts.cost(*lengths(n), args.sentence)

    def of_tokens(n: float) -> float:
        return tokens.cost(*lengths(n))

    at = crossing_of(of_concepts, of_tokens, _SHORTEST, 1e7)
    return {
        "ratio": {str(n): round(of_tokens(n) / of_concepts(n), 3) for n in args.lengths},
        "crossing": None if at is None else round(at),
    }


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
