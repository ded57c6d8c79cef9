"""Our encoders and decoder beside sonar-space's pipelines: same random weights, same inputs, same threads, in turns.

Runs in the environment that `./scripts/test --sonar` makes; anywhere else it measures ours alone and says so. A ratio
is how many times as long sonar-space takes. Where it is under 2, the time of our matrix products alone is measured too.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from agent.metrics import peak_rss_mb
from lcm.bundle import Bundle
from lcm.space import ConceptSpace, DecodingOptions
from lcm.space.backend import Precision, TorchBackend
from lcm.space.fbank import SAMPLE_RATE
from lcm.space.layers import TiedProjection
from lcm.space.packed import PackedLinear
from scripts.random_sonar import SPOKEN, write_random_sonar

KINDS = ("encode_text", "decode_text", "encode_speech")
PART = {"encode_text": "text_encoder", "decode_text": "text_decoder", "encode_speech": f"speech_encoder_{SPOKEN}"}
BATCHES, TOKENS, SECONDS, BEAMS = (1, 16), (5, 25), (2, 8), (1, 5)
LANGUAGE = "eng_Latn"
ENOUGH = 2.0
BESIDE = Path(__file__).parent.parent / ".venv-sonar" / "bin" / "python"
_MEGABYTE = 1_000_000
_PASSAGE = (
    "The train to the coast leaves at seven from platform nine, and the tickets that my sister bought yesterday are "
    "in the drawer beside the door, under the map of the old town and the letter from the school. When the rain had "
    "gone we went down to the harbour, where a man with a grey dog was selling bread and apples to everybody who came "
    "out of the station. Nobody knew when the next boat would leave, but the children had found a blue kite."
)

Call = Callable[[], Any]


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; choose of {', '.join(known)}")
        return chosen

    return some


@dataclass(frozen=True, slots=True)
class Case:
    """One input, as each side takes it."""

    name: str
    ours: Call
    theirs: Call | None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes, precision, repetitions."""
    parser.add_argument("--size", default="small", choices=("small", "official"), help="of the models (%(default)s)")
    parser.add_argument("--device", default="cpu", help="any torch device (%(default)s)")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    precisions = get_args(Precision)
    parser.add_argument(
        "--also", type=_some_of(precisions), default=[], metavar="P,P", help="precisions to measure ours in as well"
    )
    parser.add_argument(
        "--only", type=_some_of(KINDS), default=KINDS, metavar="K,K", help=f"which of {', '.join(KINDS)}"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=9, metavar="N", help="each case, after one that warms up (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_space"), help="of the weights (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    beside = importlib.util.find_spec("sonar") is not None
    if not beside and BESIDE.exists() and Path(sys.prefix) != BESIDE.parents[1]:
        print(f"bench: going on in {BESIDE.parents[1]}, where sonar-space is", file=sys.stderr, flush=True)
        os.execv(BESIDE, [str(BESIDE), "-m", "scripts.bench", *sys.argv[1:]])
    if not beside:
        print("bench: no sonar-space here, so ours alone (./scripts/test --sonar installs it)", file=sys.stderr)
    folder = write_random_sonar(args.folder, args.size)
    measured: dict[str, Any] = {name: {} for name in ("ratio", "ours_ms", "theirs_ms", "difference", "products")}
    also: dict[str, dict[str, float]] = {}
    for kind in args.only:
        for case, figures in _measured(kind, folder, args, beside):
            for name, value in figures.items():
                measured[name][case] = value
        for precision in args.also:
            ours = _ours_alone(kind, folder, args, precision)
            rivals = measured["theirs_ms"] or measured["ours_ms"]
            also.setdefault(precision, {}).update({case: _round(rivals[case] / ms) for case, ms in ours.items()})
    sides = ("ours", "theirs") if beside else ("ours",)
    peak = {kind: {side: peak_mb(side, kind, folder, args) for side in sides} for kind in args.only}
    ratios = list(measured["ratio"].values())
    return {
        "benchmark": "space",
        "size": args.size,
        "device": _device_name(args.device),
        "precision": args.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "beside": f"sonar-space {importlib.metadata.version('sonar-space')}" if beside else None,
        **{name: values for name, values in measured.items() if values},
        **({"median_ratio": _round(statistics.median(ratios)), "least_ratio": min(ratios)} if ratios else {}),
        **({"also": also} if also else {}),
        "peak_mb": peak,
    }


def _measured(kind: str, folder: Path, args: argparse.Namespace, beside: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case of a kind; the two sides take turns, so that both meet the same noise."""
    space, module = _loaded(kind, folder, args.device, args.precision)
    theirs = _sonar_pipeline(kind, folder, args.device, args.precision) if beside else None
    for case in cases(kind, space, theirs):
        figures: dict[str, Any] = {}
        alone, warm = products_of(module, case.ours)
        if case.theirs:
            figures["difference"] = _difference(warm, case.theirs())
        turns = [case.ours, alone, *([case.theirs] if case.theirs else [])]
        rounds = [[_timed(call, args.device) for call in turns] for _ in range(args.rounds)]
        own, products, *other = zip(*rounds, strict=True)
        figures["ours_ms"] = _round(statistics.median(own))
        for theirs_ms in other:
            figures["theirs_ms"] = _round(statistics.median(theirs_ms))
            figures["ratio"] = _median_ratio(theirs_ms, own)
            if figures["ratio"] < ENOUGH:
                figures["products"] = {
                    "share_of_ours": _median_ratio(products, own),
                    "ratio_if_nothing_else": _median_ratio(theirs_ms, products),
                }
        print(f"{case.name}: {figures}", file=sys.stderr, flush=True)
        yield case.name, figures
    del space, module, theirs
    gc.collect()


def _ours_alone(kind: str, folder: Path, args: argparse.Namespace, precision: Precision) -> dict[str, float]:
    space, _ = _loaded(kind, folder, args.device, precision)
    taken = {}
    for case in cases(kind, space, None):
        case.ours()
        taken[case.name] = statistics.median(_timed(case.ours, args.device) for _ in range(args.rounds))
    return taken


def _loaded(kind: str, folder: Path, device: str, precision: Precision) -> tuple[ConceptSpace, nn.Module]:
    """A space with one part, and the module that computes it."""
    bundle, where = Bundle.open(folder), torch.device(device)
    backend = TorchBackend(bundle, where, precision)
    return ConceptSpace(bundle, backend, where), backend.module(PART[kind])


def cases(kind: str, space: ConceptSpace, theirs: Any) -> Iterator[Case]:
    """Everything that is measured of one kind."""
    for batch in BATCHES:
        if kind == "encode_speech":
            yield from (_encode_speech(space, theirs, batch, seconds) for seconds in SECONDS)
        elif kind == "encode_text":
            yield from (_encode_text(space, theirs, batch, tokens) for tokens in TOKENS)
        else:
            yield from (_decode_text(space, theirs, batch, tokens, beam) for tokens in TOKENS for beam in BEAMS)


def _encode_text(space: ConceptSpace, theirs: Any, batch: int, tokens: int) -> Case:
    texts = sentences(space, batch, tokens)
    return Case(
        f"encode_text_b{batch}_{tokens}",
        lambda: space.encode_text(texts, LANGUAGE),
        theirs and (lambda: theirs.predict(texts, source_lang=LANGUAGE, batch_size=batch)),
    )


def _decode_text(space: ConceptSpace, theirs: Any, batch: int, tokens: int, beam: int) -> Case:
    concepts = torch.randn(batch, space.dim, generator=torch.Generator().manual_seed(0))
    options = DecodingOptions(beam=beam, max_tokens=tokens)
    longest = tokens + len(space.tokenizer.target_prefix(LANGUAGE)) + 1
    given = concepts.to(space.device)
    return Case(
        f"decode_text_{'greedy' if beam == 1 else f'beam{beam}'}_b{batch}_{tokens}",
        lambda: [decoded.text for decoded in space.decode(concepts, LANGUAGE, options)],
        theirs
        and (
            lambda: theirs.predict(given, target_lang=LANGUAGE, batch_size=batch, beam_size=beam, max_seq_len=longest)
        ),
    )


def _encode_speech(space: ConceptSpace, theirs: Any, batch: int, seconds: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    waveforms = [0.1 * torch.randn(seconds * SAMPLE_RATE, generator=generator) for _ in range(batch)]
    rows = [waveform[None] for waveform in waveforms]
    return Case(
        f"encode_speech_b{batch}_{seconds}s",
        lambda: space.encode_speech(waveforms, language=SPOKEN),
        theirs and (lambda: theirs.predict(rows, batch_size=batch)),
    )


def sentences(space: ConceptSpace, count: int, tokens: int) -> list[str]:
    """Different sentences of so many pieces each."""
    words, found = _PASSAGE.split(), []
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            text = " ".join(words[first:last])
            if len(space.tokenizer.encode(text)) >= tokens:
                break
        if len(space.tokenizer.encode(text)) == tokens:
            found.append(text)
    return found[:count] if len(found) >= count else (found * count)[:count]


def _sonar_pipeline(kind: str, folder: Path, device: str, precision: Precision) -> Any:
    """sonar-space's own pipeline over its own modules."""
    from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer
    from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline
    from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline, TextToEmbeddingModelPipeline

    from lcm.space.sonar_space import SonarSpaceBackend

    bundle, where = Bundle.open(folder), torch.device(device)
    module = SonarSpaceBackend(bundle, where, precision).module(PART[kind])
    if kind == "encode_speech":
        return SpeechToEmbeddingModelPipeline(module, device=where)
    named = NllbTokenizerConfig(langs=bundle.languages["text"], default_lang=LANGUAGE)
    tokenizer = load_nllb_tokenizer(bundle.tokenizer_path(), named)
    pipeline = TextToEmbeddingModelPipeline if kind == "encode_text" else EmbeddingToTextModelPipeline
    return pipeline(module, tokenizer, device=where)


def products_of(model: nn.Module, call: Call) -> tuple[Call, Any]:
    """The matrix products with weights that one call makes, alone, and what the call gave."""
    calls: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, x: tuple[Tensor, ...], _: Any) -> None:
        calls.append((module, x[0]))

    maps = [module for module in model.modules() if isinstance(module, nn.Linear | PackedLinear | TiedProjection)]
    hooks = [module.register_forward_hook(note) for module in maps]
    given = call()
    for hook in hooks:
        hook.remove()

    def products() -> None:
        with torch.inference_mode():
            for module, x in calls:
                module(x)

    products()
    return products, given


def peak_mb(side: str, kind: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Highest resident memory of a process of its own that loads one part and goes through its cases."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_mb, side, kind, folder, args.device, args.precision).result()


def _peak_mb(side: str, kind: str, folder: Path, device: str, precision: Precision) -> dict[str, float]:
    start = time.perf_counter()
    theirs = _sonar_pipeline(kind, folder, device, precision) if side == "theirs" else None
    if theirs:
        space = ConceptSpace.load(folder, device, parts=[])  # for its tokenizer
    else:
        space, _ = _loaded(kind, folder, device, precision)
    load_s, loaded = time.perf_counter() - start, peak_rss_mb()
    for case in cases(kind, space, theirs):
        (case.theirs or case.ours)()
    figures = {"load_s": _round(load_s), "loaded": loaded, "peak": peak_rss_mb()}
    if device.startswith("cuda"):
        figures["cuda_peak"] = _round(torch.cuda.max_memory_allocated() / _MEGABYTE)
    return figures


def _timed(call: Call, device: str) -> float:
    """Milliseconds."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1_000


def _difference(ours: Any, theirs: Any) -> float:
    """Largest between concepts; share of sentences that differ."""
    if isinstance(ours, Tensor):
        return float(f"{float((ours - theirs.float().cpu()).abs().max()):.1e}")
    return float(sum(a.strip() != b.strip() for a, b in zip(ours, theirs, strict=True)) / len(ours))


def _device_name(device: str) -> str:
    return str(torch.cuda.get_device_name()) if device.startswith("cuda") else device


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return _round(statistics.median(a / b for a, b in zip(above, below, strict=True)))


def _round(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")
