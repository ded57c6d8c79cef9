"""`bench lcm` on a GPU: latency of one concept at Meta's 1.6B sizes, bfloat16, random weights.

One concept: the one before it is read, then the next is drawn, for a batch of conversations whose contexts are held.
Base, and Two-Tower in 40, 4 and 1 steps: called kernel by kernel (eager), with the drawing replayed as a CUDA graph, as
the engine does (engine), and with all of it in one graph (graph).
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lcm.models.tower import Tower
from lcm.models.turns import ROLE_NARRATOR, Turns
from lcm.models.two_tower import TwoTowerDrawer
from scripts.bench_floor import bytes_read, read_bandwidth, seconds_of
from scripts.bench_lcm_cases import SAMPLING, SEED
from scripts.bench_turns import rounded
from scripts.meta_models import PUBLISHED, bare_model

MEASURED = {"base_1_6b": (1,), "two_tower_1_6b": (40, 4, 1)}
"""Published sizes, and in how many steps a concept is drawn"""
BATCHES = (1, 8, 64)
HELD = 64
"""Concepts of context"""
_WARM_UPS = 3


def run_cuda(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    torch.manual_seed(SEED)
    bandwidth = read_bandwidth(args.device)
    latency = {}
    for name, all_steps in MEASURED.items():
        kind, sizes = PUBLISHED[name]
        model = random_model(kind, sizes, args.device)
        for steps in all_steps:
            floor_ms = 1_000 * bytes_read(model, steps) / bandwidth
            for batch in BATCHES:
                case = f"{name}_s{steps}_b{batch}" if kind == "two_tower" else f"{name}_b{batch}"
                latency[case] = figures_of(model, steps, batch, floor_ms, args)
                print(f"{case}: {json.dumps(latency[case])}", file=sys.stderr, flush=True)
        del model
    on_gpu = args.device.startswith("cuda")
    return {
        "benchmark": "lcm",
        "device": str(torch.cuda.get_device_name()) if on_gpu else args.device,
        "torch": torch.__version__,
        "precision": "bfloat16",
        "context": HELD,
        "bandwidth_gb_s": rounded(bandwidth / 1e9),
        "latency": latency,
        **({"peak_gb": rounded(torch.cuda.max_memory_allocated() / 1e9)} if on_gpu else {}),
    }


def random_model(kind: str, sizes: dict[str, int], device: str) -> Tower:
    """Meta's architecture, filled where it is computed."""
    model = bare_model(kind, sizes, HELD).to(torch.bfloat16).to_empty(device=device)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0.0, tensor.shape[-1] ** -0.5)
            else:
                tensor.normal_(float(name.endswith(("norm.weight", "scale"))), 0.1)
    return model.eval()


@torch.inference_mode()
def figures_of(model: Tower, steps: int, batch: int, floor_ms: float, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of conversation, and the floor's share of them."""
    eager = conversation(model, steps, batch, args.device, graphs=False)
    calls: dict[str, Callable[[], Any]] = {"eager": eager}
    if args.device.startswith("cuda"):
        calls |= {"engine": conversation(model, steps, batch, args.device), "graph": graphed(eager)}
    figures: dict[str, float] = {}
    for way, call in calls.items():
        for _ in range(_WARM_UPS):
            call()
        milliseconds = statistics.median(1_000 * seconds_of(call, args.device) for _ in range(args.rounds))
        figures |= {f"{way}_ms": rounded(milliseconds), f"{way}_floor": rounded(floor_ms / milliseconds)}
    return figures


def conversation(model: Tower, steps: int, batch: int, device: str, *, graphs: bool = True) -> Callable[[], Tensor]:
    """What reads a concept of every conversation and draws the next one; the ring being full, it may go on for ever."""
    width = model.config.concept_dim
    contexts = torch.randn(batch, HELD, width, device=device)
    turns = Turns.of(torch.full((batch, HELD), ROLE_NARRATOR, device=device))
    state, draw = model.start(batch), model.drawer(replace(SAMPLING, steps=steps))
    if isinstance(draw, TwoTowerDrawer):
        draw = replace(draw, chain=replace(draw.chain, graphs=graphs))
    while state.longest <= state.slots:
        model.read(contexts, turns, torch.full((batch,), HELD, device=device), state)
    concept, noise = contexts[:, :1].clone(), torch.randn(batch, *draw.noise_shape, device=device)
    one, first = torch.ones(batch, dtype=torch.int64, device=device), Turns(turns.roles[:, :1], turns.places[:, :1])
    asked = Turns(first.roles[:, 0], first.places[:, 0])

    def converse() -> Tensor:
        model.read(concept, first, one, state)
        return draw(asked, state, noise)

    return converse


def graphed(call: Callable[[], Tensor]) -> Callable[[], None]:
    """The same kernels, captured once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
