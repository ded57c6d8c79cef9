"""`noema continue | summarise | plan`: what else concepts are good for, from text or sound, in any language."""

import argparse
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from agent.commands.given import GivenItem, add_inputs, given_items, understanding
from agent.commands.options import VARIANTS, print_json, settings, subparser, warn
from agent.commands.texts import add_beam, check_beam, say
from agent.errors import OK, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from agent.config import AgentConfig
    from agent.inference.models import Models
    from lcm.engine import Engine

MOST_SENTENCES = 1000
_TELLS_ON = ("two_tower_few", "two_tower", "base")
_PLANS = ("planning", "two_tower_few", "two_tower", "base")
"""Models by how well they do that (docs/LOG.md)"""
MOST_AHEAD = 32
_LARGEST_SEED = 2**32 - 1
_CONTINUE = """
noema continue "Once upon a time a hungry fox came to a garden."
noema continue story.txt --sentences 8 --to deu
noema continue tale.opus --language fra --to eng --json
"""
_SUMMARISE = """
noema summarise story.txt --ratio 0.2
noema summarise --sentences 3 < story.txt
noema summarise talk.opus --language fra --to deu
"""
_PLAN = """
noema plan story.txt
noema plan --to spa < story.txt
noema plan story.txt --ahead 3
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommands."""
    goes_on = subparser(commands, "continue", "go on telling a story", _CONTINUE)
    _add_use(goes_on)
    _add_model(goes_on, _TELLS_ON)
    goes_on.add_argument("--sentences", type=int, default=4, metavar="N", help="how many, at most (default: 4)")
    goes_on.set_defaults(run=run_continue)
    shorter = subparser(commands, "summarise", "keep the sentences that stand for the whole", _SUMMARISE)
    _add_use(shorter)
    length = shorter.add_mutually_exclusive_group()
    length.add_argument(
        "--ratio", type=float, default=0.2, metavar="R", help="share of the sentences, rounded up (default: 0.2)"
    )
    length.add_argument("--sentences", type=int, metavar="N", help="or how many")
    shorter.set_defaults(run=run_summarise)
    plan = subparser(commands, "plan", "find the paragraphs of a text, and the sentence that says each", _PLAN)
    _add_use(plan)
    plan.add_argument(
        "--sentences",
        type=int,
        default=9,
        metavar="N",
        help="of a paragraph, at most, where none are marked (default: 9)",
    )
    plan.add_argument("--ahead", type=int, default=0, metavar="N", help="and what N paragraphs more would say")
    _add_model(plan, _PLANS, "with --ahead: ")
    plan.set_defaults(run=run_plan)


def _add_use(parser: argparse.ArgumentParser) -> None:
    add_inputs(parser)
    parser.add_argument(
        "--to",
        metavar="L",
        help="language to say it in, ISO 639-3 (default: that of what came last); text in it is quoted as it stands",
    )
    add_beam(parser)


def _add_model(parser: argparse.ArgumentParser, preferred: Sequence[str], when: str = "") -> None:
    first, *others = preferred
    parser.add_argument(
        "--variant",
        metavar="V",
        choices=VARIANTS,
        help=f"{when}which model of the bundle (default: {first}; where there is none, {' or '.join(others)})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help=f"{when}another draw, of models that draw (default: 0)"
    )


def run_continue(args: argparse.Namespace) -> int:
    """Tells on; each sentence is said as soon as it is known."""
    from lcm.continuation import continuation

    check_beam(args.beam)
    _check_count("--sentences", args.sentences, MOST_SENTENCES)
    _check_seed(args.seed)
    config = settings(args)
    variant = args.variant or _first_of(config, _TELLS_ON)
    models, items, engine = _understood(args, config, variant)
    assert engine is not None  # a variant was asked for
    to = _said_in(models, items, args.to)
    told: list[dict[str, Any]] = []
    for next_ in continuation(engine, _concepts(items), args.sentences, args.seed, _marked(items)):
        [text] = say(models, next_.concept[None].numpy(), to, args.beam)
        told.append({"text": text, "paragraph": next_.paragraph})
        if not args.json:
            print(text, flush=True)
    _tell_if_fewer(len(told), args.sentences)
    if args.json:
        print_json({**_about(models, items, to), "variant": variant, "seed": args.seed, "sentences": told})
    return OK


def run_summarise(args: argparse.Namespace) -> int:
    """Keeps some of the sentences, in their order."""
    from lcm.summary import kept_count, summary

    check_beam(args.beam)
    if not 0 < args.ratio <= 1:
        raise UsageError(f"--ratio {args.ratio:g}: give the share to keep, above 0 and at most 1, as in --ratio 0.2")
    if args.sentences is not None and args.sentences < 1:
        raise UsageError(f"--sentences {args.sentences}: keep at least 1")
    models, items, _ = _understood(args, settings(args))
    to = _said_in(models, items, args.to)
    concepts = _concepts(items)
    count = args.sentences or kept_count(len(concepts), args.ratio)
    kept = summary(concepts, count)
    texts = _words(models, items, kept, to, args)
    if args.json:
        sources = _sources(items)
        rows = [{"place": at, "source": sources[at], "text": text} for at, text in zip(kept, texts, strict=True)]
        print_json({**_about(models, items, to), "of": len(concepts), "sentences": rows})
    else:
        print("\n".join(texts))
    return OK


def run_plan(args: argparse.Namespace) -> int:
    """Finds paragraphs, names each by one of its sentences, and plans on where asked to."""
    from lcm.continuation import plan
    from lcm.planning import plan_concept

    check_beam(args.beam)
    _check_count("--sentences", args.sentences, MOST_SENTENCES)
    _check_seed(args.seed)
    _check_count("--ahead", args.ahead, MOST_AHEAD, least=0)
    config = settings(args)
    variant = (args.variant or _first_of(config, _PLANS)) if args.ahead else None
    models, items, engine = _understood(args, config, variant)
    to = _said_in(models, items, args.to)
    concepts = _concepts(items)
    starts = _paragraphs(items, concepts, args.sentences)
    ends = [*starts[1:], len(concepts)]
    places = [start + plan_concept(concepts[start:end]) for start, end in zip(starts, ends, strict=True)]
    texts, sources = _words(models, items, places, to, args), _sources(items)
    paragraphs = [
        {"start": start, "sentences": end - start, "place": at, "source": sources[at], "text": text}
        for start, end, at, text in zip(starts, ends, places, texts, strict=True)
    ]
    ahead: list[str] = []
    if engine is not None:
        split = [concepts[start:end] for start, end in zip(starts, ends, strict=True)]
        ahead = say(models, plan(engine, split, args.ahead, args.seed).numpy(), to, args.beam)
    if args.json:
        planned = {"variant": variant, "seed": args.seed} if args.ahead else {}
        print_json({**_about(models, items, to), **planned, "paragraphs": paragraphs, "ahead": ahead})
    else:
        _print_plan(paragraphs, ahead)
    _tell_if_fewer(len(ahead), args.ahead)
    return OK


def _print_plan(paragraphs: Sequence[dict[str, Any]], ahead: Sequence[str]) -> None:
    for number, paragraph in enumerate(paragraphs, start=1):
        length = paragraph["sentences"]
        print(f"{number}. {paragraph['text']}  ({length} sentence{'s' if length != 1 else ''})")
    for number, text in enumerate(ahead, start=len(paragraphs) + 1):
        print(f"{number}. {text}  (ahead)")


def _first_of(config: "AgentConfig", preferred: Sequence[str]) -> str:
    """The first of these models that the bundle has; if none, the first, so that its absence is told."""
    from lcm.engine import variants_of

    found = variants_of(config.bundle)
    return next((variant for variant in preferred if variant in found), preferred[0])


def _understood(
    args: argparse.Namespace, config: "AgentConfig", variant: str | None = None
) -> tuple["Models", list[GivenItem], "Engine | None"]:
    """What was given, as concepts, and the model that is asked for: it is loaded first, being the smaller."""
    engines: list[Engine] = []

    def check(models: "Models") -> None:
        if variant is not None:
            from lcm.engine import Engine

            engines.append(Engine.load(config.bundle, variant=variant, device=config.device, space=models.space))

    models, languages = understanding(config, args.inputs, args.to, said=True, check=check)
    items = [item for item in given_items(models, args.inputs, languages, config, by_paragraph=True) if item.sentences]
    return models, items, engines[0] if engines else None


def _said_in(models: "Models", items: Sequence[GivenItem], to: str | None) -> str:
    """The language to say it in: where none is named, that of what came last."""
    return models.check_language(items[-1].language if to is None else to)


def _concepts(items: Sequence[GivenItem]) -> "Tensor":
    """[T, D]."""
    import torch

    return torch.cat([torch.from_numpy(item.concepts) for item in items])


def _sources(items: Sequence[GivenItem]) -> list[str]:
    """The sentence, or the place in a recording, that each concept comes from."""
    return [sentence for item in items for sentence in item.sentences]


def _paragraphs(items: Sequence[GivenItem], concepts: "Tensor", longest: int) -> list[int]:
    """Where they start: as the text has them; in one that has none, and in sound, as they are found."""
    from lcm.planning import paragraph_starts

    return _marked(items) or paragraph_starts(concepts, longest)


def _marked(items: Sequence[GivenItem]) -> list[int] | None:
    """Where the paragraphs start that a text has itself; of one that has none, and of sound, nobody knows."""
    if len(items) < 2 or any(item.heard for item in items):
        return None
    return list(accumulate((len(item.concepts) for item in items[:-1]), initial=0))


def _words(
    models: "Models", items: Sequence[GivenItem], places: Sequence[int], to: str, args: argparse.Namespace
) -> list[str]:
    """What was written in that language already is quoted; all else is put into words."""
    concepts, sources = _concepts(items), _sources(items)
    written = [not item.heard and item.language == to for item in items for _ in item.sentences]
    unsaid = [at for at in dict.fromkeys(places) if not written[at]]
    said = dict(zip(unsaid, say(models, concepts[unsaid].numpy(), to, args.beam), strict=True)) if unsaid else {}
    return [said.get(at, sources[at]) for at in places]


def _about(models: "Models", items: Sequence[GivenItem], to: str) -> dict[str, Any]:
    languages = dict.fromkeys(item.language for item in items)
    return {"language": ",".join(languages), "to": to, "bundle": models.bundle}


def _tell_if_fewer(found: int, asked: int) -> None:
    if found < asked:
        warn(f"the model went no further than {found} of {asked}: it ended the text, or would have repeated itself")


def _check_count(option: str, number: int, most: int, least: int = 1) -> None:
    if not least <= number <= most:
        raise UsageError(f"{option} {number}: choose a number from {least} to {most}")


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= _LARGEST_SEED:
        raise UsageError(f"--seed {seed}: choose a number from 0 to {_LARGEST_SEED}")
