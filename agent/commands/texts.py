"""`noema encode | decode | translate`: text or audio files to concepts, and concepts to text."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.given import add_inputs, given_items, loaded, understanding
from agent.commands.options import add_json_option, add_model_options, print_json, settings, subparser
from agent.errors import OK, UsageError

if TYPE_CHECKING:
    from agent.core.events import FloatArray
    from agent.inference.models import Models

_ENCODE = """
noema encode "The cat is hungry." --out cat.npz
noema encode talk.mp3 --language eng --out talk.npz
noema encode talk.mp3 --language eng,fra --out talk.npz
noema encode "Le chat a faim." --language fra --json | noema decode --language deu
"""
_DECODE = """
noema decode cat.npz --language fra
noema encode "Good morning." --json | noema decode --language spa
"""
_TRANSLATE = """
noema translate "Where is the station?" --to deu
noema translate --language fra --to eng < lettre.txt
noema translate talk.opus --to spa
noema translate meeting.opus --language auto --to spa
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommands."""
    encode = subparser(commands, "encode", "turn text or sound files into concepts", _ENCODE)
    add_inputs(encode)
    encode.add_argument("--out", type=Path, metavar="F.npz", help="write the concepts here")
    encode.set_defaults(run=run_encode)
    decode = subparser(commands, "decode", "turn concepts into text", _DECODE)
    decode.add_argument("files", nargs="*", type=Path, metavar="F.npz", help="concepts (default: JSON on stdin)")
    decode.add_argument("--language", required=True, metavar="L", help="language to say them in, ISO 639-3")
    add_beam(decode)
    add_json_option(decode)
    add_model_options(decode)
    decode.set_defaults(run=run_decode)
    translate = subparser(commands, "translate", "say text or sound files in another language", _TRANSLATE)
    add_inputs(translate)
    translate.add_argument("--to", required=True, metavar="L", help="language to say it in, ISO 639-3")
    add_beam(translate)
    translate.set_defaults(run=run_translate)


def run_encode(args: argparse.Namespace) -> int:
    """Encodes everything given."""
    import numpy as np

    from agent.concept_files import ConceptFile, save_concepts

    config = settings(args)
    models, languages = understanding(config, args.inputs)
    items = list(given_items(models, args.inputs, languages, config))
    texts = tuple(text for item in items for text in item.sentences)
    found = tuple(item.language for item in items for _ in item.sentences) if len(languages) > 1 else ()
    content = ConceptFile(
        np.concatenate([item.concepts for item in items]),
        texts,
        ",".join(dict.fromkeys(item.language for item in items)),
        models.space.space_id,
        found,
    )
    if args.out is not None:
        save_concepts(args.out, content)
    if args.json:
        print_json(content.as_json())
        return OK
    for item in items:
        for text, concept in zip(item.sentences, item.concepts, strict=True):
            numbers = f"{concept[0]:+.3f} {concept[1]:+.3f} {concept[2]:+.3f} ... {len(concept)} numbers"
            sure = "" if item.probability is None else f"  ({item.language} {item.probability * 100:.0f} %)"
            print(f"[{numbers}]  {text}{sure}")
    if args.out is not None:
        print(f"{len(texts)} concepts in {args.out}")
    return OK


def run_decode(args: argparse.Namespace) -> int:
    """Decodes concept files, or what comes on stdin."""
    from agent.concept_files import check_space, concepts_from_json, load_concepts

    check_beam(args.beam)
    if not args.files and sys.stdin.isatty():
        raise UsageError("nothing to decode; give an .npz file or pipe in what `noema encode --json` prints")
    models = loaded(
        settings(args), typed=False, heard=(), said=True, check=lambda models: models.check_language(args.language)
    )
    language = models.check_language(args.language)
    space_id, dim = models.space.space_id, models.space.dim
    contents = [load_concepts(path, space_id, dim) for path in args.files]
    if not args.files:
        contents.append(concepts_from_json(sys.stdin.read(), "stdin"))
        check_space(contents[0], space_id, dim, "stdin")
    texts = [text for content in contents for text in say(models, content.concepts, language, args.beam)]
    if args.json:
        print_json({"language": language, "texts": texts, "bundle": models.bundle})
    else:
        print("\n".join(texts))
    return OK


def run_translate(args: argparse.Namespace) -> int:
    """Translates line by line, so that output lines belong to input lines."""
    check_beam(args.beam)
    config = settings(args)
    models, languages = understanding(config, args.inputs, args.to)
    to = models.check_language(args.to)
    pairs = []
    for item in given_items(models, args.inputs, languages, config):
        text = " ".join(say(models, item.concepts, to, args.beam)) if len(item.concepts) else ""
        found = (
            {} if item.probability is None else {"language": item.language, "language_probability": item.probability}
        )
        pairs.append({"source": item.source, "text": text, **found})
        if not args.json:
            print(text, flush=True)
    if args.json:
        print_json({"language": ",".join(languages), "to": to, "items": pairs, "bundle": models.bundle})
    return OK


def say(models: "Models", concepts: "FloatArray", language: str, beam: int) -> list[str]:
    """One sentence a concept."""
    import torch

    return models.space.decode_text(torch.from_numpy(concepts), language=language, beam=beam)


def add_beam(parser: argparse.ArgumentParser) -> None:
    """--beam."""
    parser.add_argument("--beam", type=int, default=1, metavar="N", help="width of the search (default: 1)")


def check_beam(beam: int) -> None:
    """A width that decoding can do."""
    if not 1 <= beam <= 64:
        raise UsageError(f"--beam {beam}: choose a width from 1 to 64")
