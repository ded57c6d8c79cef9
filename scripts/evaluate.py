"""Measure a bundle on held-out data; the last line of stdout is one JSON object.

python -m scripts.evaluate --bundle mini --json
python -m scripts.evaluate --bundle runs/bundle --only text
python -m scripts.evaluate --bundle mini --only spoken_language --split dev
python -m scripts.evaluate --bundle mini --only lcm --variants base,two_tower --split dev
python -m scripts.evaluate --bundle mini --blind base:retrieve two_tower:lcm --out runs/blind  # then fill in votes.json
python -m scripts.evaluate --votes runs/blind
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from agent.config import load_config
from audio.frames import FloatArray, Framer
from audio.segmenter import Segmenter, Utterance
from audio.vad import load_vad
from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.engine import variants_of
from lcm.errors import BundleError, LcmError, TrainingDataError
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace
from lcm.space.backend import Precision
from lcm.training import blind
from lcm.training.data import DEFAULT_DATA, DEFAULT_PREPARED, DEFAULT_RUNS, check_splits, prepare
from lcm.training.evaluate_lcm import engine_of, evaluate_lcm, evaluation_table
from lcm.training.judge import FolderJudge, TokenModel
from lcm.training.judge_model import SmallJudge
from lcm.training.prompted_replies import LcmReplier, Prompted, RetrieveReplier, prompts

JUDGE = "judge_mini"
MEASURED = ("text", "speech", "spoken_language", "lcm")


def main() -> int:
    """Exit code 0; 2 when the options, the bundle or the data cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="mini", help="name or folder (%(default)s)")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="raw training data (%(default)s)")
    parser.add_argument(
        "--prepared", type=Path, default=DEFAULT_PREPARED, help="its splits, made if missing (%(default)s)"
    )
    parser.add_argument("--only", type=_chosen, default=MEASURED, help=f"which to measure ({','.join(MEASURED)})")
    parser.add_argument("--split", default="test", choices=["dev", "test"], help="dev while developing (%(default)s)")
    parser.add_argument(
        "--variants", type=lambda text: text.split(","), help="concept models: base,two_tower@steps=4 (all)"
    )
    parser.add_argument(
        "--judge", type=Path, metavar="FOLDER", help="a language model of Hugging Face, as GPT-2, instead of ours"
    )
    parser.add_argument(
        "--blind",
        nargs=2,
        metavar="VARIANT:WAY",
        help="replies of two systems side by side, nameless; WAY: lcm, retrieve",
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_RUNS / "blind", help="where to (%(default)s)")
    parser.add_argument("--votes", type=Path, metavar="FOLDER", help="count the votes of a blind comparison")
    parser.add_argument("--beam", type=int, default=1, help="hypotheses of the decoder's search (%(default)s)")
    parser.add_argument(
        "--precision", default="float32", choices=get_args(Precision), help="of the weights (%(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="also keep the test figures in bundle.json")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    arguments = parser.parse_args()
    if arguments.write and arguments.split != "test":
        parser.error("--write keeps what is reported, and that is the test split's; leave out --split dev")
    if arguments.write and (arguments.beam, arguments.precision) != (1, "float32"):
        parser.error("--write keeps what is reported: greedy, in float32; leave out --beam and --precision")
    if arguments.write and arguments.variants:
        parser.error("--write keeps what is reported, and that is every concept model; leave out --variants")
    report = (lambda _: None) if arguments.json else (lambda line: print(line, file=sys.stderr))
    try:
        if arguments.votes:
            print(json.dumps(blind.counted(arguments.votes), ensure_ascii=False))
            return 0
        if arguments.blind:
            print(json.dumps(compare_blind(arguments), ensure_ascii=False))
            return 0
        figures = evaluate(arguments, report)
        if arguments.write:
            keep(Bundle.open(arguments.bundle), figures)
        print(json.dumps(figures, ensure_ascii=False))
    except LcmError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(arguments: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    """Every figure that the bundle's parts allow."""
    started = time.monotonic()
    _prepared(arguments.data, arguments.prepared, report)
    bundle = Bundle.open(arguments.bundle)
    space = ConceptSpace.load(arguments.bundle, precision=arguments.precision)
    only, split = arguments.only, arguments.split
    figures: dict[str, Any] = {"bundle": bundle.name, "space_id": bundle.space_id, "split": split, "baselines": {}}
    if "text" in only:
        from lcm.training.evaluate_text import evaluate_text, text_baselines

        report("text: retrieval, autoencoding, translation, noise")
        figures["text"] = evaluate_text(space, arguments.prepared, split=split, beam=arguments.beam)
        figures["baselines"]["text"] = text_baselines(space, arguments.prepared, split=split)
    stores = DEFAULT_RUNS / "speech_data"
    if {"speech", "spoken_language"} & set(only) and "speech_encoder" in bundle.parts:
        from lcm.training.evaluate_speech import prepare_tests

        prepare_tests(arguments.prepared, arguments.data, stores, report)
    if "speech" in only and "speech_encoder" in bundle.parts:
        from lcm.training.evaluate_speech import evaluate_speech, speech_baselines

        report("speech: retrieval and words, synthetic voices and people")
        figures["speech"] = evaluate_speech(space, arguments.prepared, stores, split=split, cut=segmenting())
        report("speech: baselines")
        figures["baselines"]["speech"] = speech_baselines(space, arguments.prepared, stores, split=split)
    if "spoken_language" in only and "spoken_language" in bundle.parts:
        from lcm.training.evaluate_spoken_language import evaluate_spoken_language

        report("speech: which language it is")
        told = evaluate_spoken_language(space, arguments.prepared, stores, split=split, cut=segmenting())
        figures["speech"] = figures.get("speech", {}) | {"spoken_language": told}
    if "lcm" in only and variants_of(arguments.bundle):
        table = evaluation_table(space, arguments.prepared, DEFAULT_RUNS / "concepts", report)
        measured = evaluate_lcm(
            arguments.bundle, space, table, variants=arguments.variants, split=split, show_progress=not arguments.json,
            judge=judge_of(space, arguments.judge, report),
        )  # fmt: skip
        figures["lcm"] = measured["lcm"]
        figures["baselines"]["lcm"] = measured["baselines"]
        figures["references"] = {"lcm": measured["references"]}
    return figures | {"seconds": round(time.monotonic() - started, 1)}


def judge_of(space: ConceptSpace, folder: Path | None, report: Callable[[str], None]) -> TokenModel | None:
    """The language model of coherence: the one at `folder`, else the one trained here, if it was."""
    if folder:
        return FolderJudge(folder)
    try:
        return SmallJudge.open(DEFAULT_RUNS / JUDGE, space.tokenizer)
    except TrainingDataError as error:
        report(f"mutual information is not measured: {error}")
        return None


def compare_blind(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the replies of two systems to the fixed prompts, as long as the live agent's."""
    names = (arguments.blind[0], arguments.blind[1])
    blind.check_new(names, arguments.out)
    space = ConceptSpace.load(arguments.bundle)
    prompted = Prompted.of(prompts(), space)
    first, second = (_replies(name, prompted, space, arguments.bundle) for name in names)
    blind.write_pairs(blind.paired(prompted.texts, first, second), names, arguments.out)
    return {"pairs": len(first), "folder": str(arguments.out)}


def _replies(system: str, prompted: Prompted, space: ConceptSpace, bundle: str) -> list[str]:
    variant, _, way = system.partition(":")
    thinking = load_config(None).thinker
    engine = engine_of(bundle, variant, space)
    if way == "lcm":
        said = LcmReplier(engine, space).replies(prompted, 0, thinking.max_concepts)
    elif way == "retrieve":
        said = RetrieveReplier(engine, ReplyBank.load(bundle, engine.keys)).replies(
            prompted, 0, thinking.max_bank_sentences
        )
    else:
        raise BundleError(f"{system!r} is no way to answer; give VARIANT:lcm or VARIANT:retrieve")
    return [" ".join(reply) for reply in said]


def keep(bundle: Bundle, figures: dict[str, Any]) -> None:
    """Write the figures to `bundle.json`, beside those that this run left out.

    What stands there is of these very weights: writing a part of a bundle forgets the figures.
    """
    known = bundle.description.get("metrics", {"baselines": {}})
    merged = {
        half: known[half] | figures[half]
        for half in ("speech", "baselines", "references")
        if half in known and half in figures
    }
    figures = known | figures | merged
    BundleWriter(bundle.folder).describe(metrics=figures)


def segmenting() -> Callable[[FloatArray], FloatArray]:
    """What the live segmenter, as it is set by default, hands to the encoder of a clip: the longest utterance."""
    config = load_config(None)
    vad, options = load_vad(config.vad.name), config.segmenter.options(config.vad.name)

    def cut(samples: FloatArray) -> FloatArray:
        vad.reset()
        framer, segmenter = Framer(), Segmenter(options)
        frames = [*framer.push(samples), *framer.flush()]
        events = [event for frame in frames for event in segmenter.push(frame, vad.probability(frame))]
        utterances = [event.samples for event in [*events, *segmenter.flush()] if isinstance(event, Utterance)]
        return max(utterances, key=len, default=samples[:0])

    return cut


def _chosen(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := [name for name in chosen if name not in MEASURED]:
        raise argparse.ArgumentTypeError(f"nothing is called {unknown[0]!r}; choose of {', '.join(MEASURED)}")
    return chosen


def _prepared(data: Path, folder: Path, report: Callable[[str], None]) -> None:
    """Make the splits where they are missing; refuse others than the bundle was trained on."""
    if not (folder / "manifest.json").exists():
        prepare(data, folder, report)
    check_splits(folder)


if __name__ == "__main__":
    sys.exit(main())
