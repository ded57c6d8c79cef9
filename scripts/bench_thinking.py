"""Every concept model of a bundle in a live conversation: how long the next concept takes, beside a budget.

In a conversation whose window is full the user says something, and the agent thinks of its first sentence: what is new
is read, and what follows is drawn, as live. The models take turns in one run. `sentence_ms` is what turns a concept
into words: decoding it, or looking it up in the bank. Random concepts; a model's time does not depend on what they say.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from agent.inference.kept_conversations import KeptConversations
from lcm.engine import Engine, variants_of
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace
from lcm.training.evaluate_lcm import engine_of
from scripts.bench_turns import rounded, taken_in_turns

BUDGET_MS = 60.0
"""Of a concept in a live conversation"""
LANGUAGE = "eng"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which models."""
    parser.add_argument("--bundle", default="mini", help="name or folder (%(default)s); its optional models as well")
    parser.add_argument("--variants", metavar="V,V", help="such as base,two_tower@steps=4 (all)")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="sentences of each (%(default)s)")
    parser.add_argument("--budget", type=float, default=120.0, metavar="S", help="no more rounds then (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    space = ConceptSpace.load(args.bundle, device="cpu")
    names = args.variants.split(",") if args.variants else variants_of(args.bundle)
    engines = {name: engine_of(args.bundle, name, space) for name in names}
    sides = {name: partial(_milliseconds, step_of(engine)) for name, engine in engines.items()}
    sentences = sentence_calls(args.bundle, space)
    sides |= {f"sentence by {way}": partial(_milliseconds, call) for way, call in sentences.items()}
    for call in sides.values():
        call()
    took = taken_in_turns(sides, args.rounds, args.budget)
    figures = {
        name: {
            "concept_ms": rounded(statistics.median(took[name])),
            "p95_ms": rounded(float(np.percentile(took[name], 95))),
            "within_budget": statistics.median(took[name]) <= BUDGET_MS,
            "parameters": engine.parameters,
        }
        for name, engine in engines.items()
    }
    for name, row in figures.items():
        print(f"{name}: {row['concept_ms']} ms a concept (p95 {row['p95_ms']})", file=sys.stderr)
    return {
        "benchmark": "thinking",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "budget_ms": BUDGET_MS,
        "variants": figures,
        "sentence_ms": {way: rounded(statistics.median(took[f"sentence by {way}"])) for way in sentences},
        "rounds": len(next(iter(took.values()))),
    }


def step_of(engine: Engine) -> Callable[[], object]:
    """A reply's first sentence, in a conversation that is as long as the model's window; each to something else."""
    generator = np.random.default_rng(0)
    conversations = KeptConversations(engine)
    before = list(generator.standard_normal((engine.context, engine.dim), dtype=np.float32))
    roles = [(len(before) - number) % 2 for number in range(len(before) + 1)]  # the user's last

    def step() -> object:
        said = generator.standard_normal(engine.dim, dtype=np.float32)
        return next(conversations.ahead(0, [*before, said], roles, 1, seed=0))

    return step


def sentence_calls(bundle: str, space: ConceptSpace) -> dict[str, Callable[[], object]]:
    """A concept's sentence: decoded, and found in the bank."""
    concept = space.encode_text(["I would like a cup of tea, please."], LANGUAGE)
    bank = ReplyBank.load(bundle)
    return {
        "decoding": lambda: space.decode_text(concept, LANGUAGE),
        "bank": lambda: bank.nearest(concept[0], LANGUAGE),
    }


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1_000 * (time.perf_counter() - start)
