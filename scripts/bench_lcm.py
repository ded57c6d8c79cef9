"""Our concept models beside Meta's public code: same sizes, random weights, contexts and noise, threads; in turns.

Their code is brought in beside by whoever wants the comparison (meta_process.py says how); without it ours is measured
alone, and what is missing is named. A ratio is how many times as long theirs takes for one concept after a context of
which nothing was read before. `floor` is the share of our time that reading the weights would take by itself.

Asked for 40 of 100 denoising steps, Meta's code takes 50 (every 100 // 40th); ours is given as many, and the same ones.
On CUDA, another bench: latency of the published 1.6B sizes, bfloat16 (bench_lcm_cuda.py).
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.engine import Engine
from lcm.models.sampler import Sampling
from lcm.models.turns import ROLE_NARRATOR
from lcm.space.backend import Precision
from scripts.bench_floor import bytes_read, read_bandwidth
from scripts.bench_lcm_cases import (
    ASKED_STEPS,
    CASES,
    SAMPLING,
    SEED,
    STEPS,
    Case,
    build_theirs,
    given,
    our_model,
)
from scripts.bench_lcm_training import training_rates
from scripts.bench_turns import median_ratio, rounded, taken_in_turns
from scripts.meta_process import BRING, MetaProcess, add_meta_options, missing_of_meta

Taken = tuple[float, Tensor]
"""Milliseconds, and the concept that was drawn"""
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "int8")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; choose of {', '.join(known)}")
        return chosen

    return some


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where Meta's code is, and how much is measured."""
    add_meta_options(parser)
    parser.add_argument("--device", default="cpu", help="cpu: beside Meta's code; cuda: the 1.6B sizes (%(default)s)")
    parser.add_argument(
        "--only", type=_some_of(CASES), default=list(CASES), metavar="C,C", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument(
        "--also", type=_some_of(PRECISIONS), default=[], metavar="P,P", help=f"ours in {', '.join(PRECISIONS)} as well"
    )
    parser.add_argument("--rounds", type=_positive, default=7, metavar="N", help="each case, at most (%(default)s)")
    parser.add_argument("--budget", type=float, default=120.0, metavar="S", help="no more rounds then (%(default)s)")
    parser.add_argument("--no-training", dest="training", action="store_false", help="do not measure training")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    if args.device.startswith("cuda"):
        from scripts.bench_lcm_cuda import run_cuda

        return run_cuda(args)
    measured: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench_lcm_")))
        meta = None
        if missing := missing_of_meta(args.meta, args.meta_python):
            print(f"bench: {missing} is missing, so ours alone. It comes with\n{BRING}", file=sys.stderr)
        else:
            meta = stack.enter_context(MetaProcess(args.meta, args.meta_python, torch.get_num_threads()))
        bandwidth = read_bandwidth()
        for name in args.only:
            measured[name] = measured_case(CASES[name], meta, folder, bandwidth, args)
            print(f"{name}: {json.dumps(measured[name])}", file=sys.stderr, flush=True)
        rates = training_rates(meta, folder, args.rounds, args.budget) if args.training else {}
        versions = meta.versions if meta else None
    per_figure = {
        figure: {name: figures[figure] for name, figures in measured.items() if figure in figures}
        for figure in dict.fromkeys(figure for figures in measured.values() for figure in figures)
    }
    differences = list(per_figure.get("difference", {}).values())
    return {
        "benchmark": "lcm",
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "beside": versions and {"code": "facebookresearch/large_concept_model", **versions},
        "steps": {"asked": ASKED_STEPS, "taken": STEPS},
        "bandwidth_gb_s": rounded(bandwidth / 1e9),
        **per_figure,
        **({"max_difference": max(differences)} if differences else {}),
        **rates,
    }


def measured_case(
    case: Case, meta: MetaProcess | None, folder: Path, bandwidth: float, args: argparse.Namespace
) -> dict[str, Any]:
    """Every figure of a case."""
    model, weights = our_model(case)
    context, noise = given(case)
    to_read = bytes_read(model, STEPS)
    narrower = {
        precision: _ours(Engine(copy.deepcopy(model), "cpu", SAMPLING, case.kind, precision), context)
        for precision in args.also
    }
    engine = Engine(model, "cpu", SAMPLING, case.kind)
    sides: dict[str, Callable[[], Taken]] = {"ours": _ours(engine, context)}
    if case.kind == "two_tower":
        sides["ours_at_40"] = _ours(engine, context, replace(SAMPLING, steps=ASKED_STEPS))
    sides |= narrower
    if meta:
        build_theirs(case, meta, weights, folder)
        sides["theirs"] = _theirs(meta, context, noise, folder)
    del weights
    drawn = {side: draw()[1] for side, draw in sides.items()}  # warms up as well
    timed = {side: partial(_milliseconds, draw) for side, draw in sides.items()}
    took = taken_in_turns(timed, args.rounds, args.budget)
    median_ms = statistics.median(took["ours"])
    figures: dict[str, Any] = {}
    if meta:
        figures["ratio"] = median_ratio(took["theirs"], took["ours"])
        figures["difference"] = _difference(drawn["ours"], drawn["theirs"])
    figures["floor"] = rounded(1_000 * to_read / bandwidth / median_ms)
    for precision in args.also:
        figures[precision] = {
            "ratio": median_ratio(took["theirs" if meta else "ours"], took[precision]),
            "difference": _difference(drawn[precision], drawn["ours"]),
            "cosine": rounded(float(F.cosine_similarity(drawn[precision], drawn["ours"], dim=0))),
        }
    figures |= {f"{side}_ms": rounded(statistics.median(ms)) for side, ms in took.items()}
    return figures | {"rounds": len(took["ours"])}


def _theirs(meta: MetaProcess, context: Tensor, noise: Tensor, folder: Path) -> Callable[[], Taken]:
    """What runs their model, already built."""
    inputs, taken = folder / "given.npz", folder / "taken.npy"
    np.savez(inputs, contexts=context[None].numpy(), noise=noise[None, None].numpy())
    sampling = asdict(SAMPLING) | {"steps": ASKED_STEPS}

    def draw() -> Taken:
        answer = meta.ask("predict", given=str(inputs), taken=str(taken), concepts=1, sampling=sampling)
        return 1_000 * answer["seconds"], torch.from_numpy(np.load(taken))[0, 0]

    return draw


def _ours(engine: Engine, context: Tensor, sampling: Sampling = SAMPLING) -> Callable[[], Taken]:
    roles = torch.full((len(context),), ROLE_NARRATOR)

    def draw() -> Taken:
        start = time.perf_counter()
        (following,) = engine.predict_next([context], [roles], [SEED], sampling=sampling)
        return 1_000 * (time.perf_counter() - start), following.concept

    return draw


def _milliseconds(draw: Callable[[], Taken]) -> float:
    return draw()[0]


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest."""
    return float(f"{float((ours - theirs).abs().max()):.1e}")
