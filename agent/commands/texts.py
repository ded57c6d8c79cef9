"""`noema encode | decode | translate`: text or audio files to concepts, and concepts to text."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from agent.commands.options import (
    LANGUAGE_HELP,
    add_json_option,
    add_model_options,
    print_json,
    settings,
    subparser,
)
from agent.errors import OK, TextInputError, UsageError
from agent.language_choice import check_typed, is_open, named

if TYPE_CHECKING:
    from agent.config import AgentConfig
    from agent.core.events import FloatArray
    from agent.inference.models import Models

_LINES_AT_ONCE = 32
_TEXT_SUFFIXES = (".txt", ".md", ".text")
_SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
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
    _add_inputs(encode)
    encode.add_argument("--out", type=Path, metavar="F.npz", help="write the concepts here")
    encode.set_defaults(run=run_encode)
    decode = subparser(commands, "decode", "turn concepts into text", _DECODE)
    decode.add_argument("files", nargs="*", type=Path, metavar="F.npz", help="concepts (default: JSON on stdin)")
    decode.add_argument("--language", required=True, metavar="L", help="language to say them in, ISO 639-3")
    decode.add_argument("--beam", type=int, default=1, metavar="N", help="width of the search (default: 1)")
    add_json_option(decode)
    add_model_options(decode)
    decode.set_defaults(run=run_decode)
    translate = subparser(commands, "translate", "say text or sound files in another language", _TRANSLATE)
    _add_inputs(translate)
    translate.add_argument("--to", required=True, metavar="L", help="language to say it in, ISO 639-3")
    translate.add_argument("--beam", type=int, default=1, metavar="N", help="width of the search (default: 1)")
    translate.set_defaults(run=run_translate)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="*", metavar="TEXT|FILE", help="text, a text file or a sound file (default: stdin)"
    )
    parser.add_argument("--language", metavar="L", help=f"what is spoken or written, {LANGUAGE_HELP}")
    add_json_option(parser)
    add_model_options(parser)


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """One line of text or one utterance."""

    source: str
    sentences: tuple[str, ...]
    concepts: "FloatArray"
    """[N, D]"""
    language: str
    probability: float | None = None
    """Of the language, where it was found out"""


def run_encode(args: argparse.Namespace) -> int:
    """Encodes everything given."""
    import numpy as np

    from agent.concept_files import ConceptFile, save_concepts

    config = settings(args)
    models, languages = _load(config, args.inputs)
    items = list(_items(models, args.inputs, languages, config))
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

    _check_beam(args.beam)
    if not args.files and sys.stdin.isatty():
        raise UsageError("nothing to decode; give an .npz file or pipe in what `noema encode --json` prints")
    models = _models(
        settings(args), typed=False, heard=(), said=True, check=lambda models: models.check_language(args.language)
    )
    language = models.check_language(args.language)
    space_id, dim = models.space.space_id, models.space.dim
    contents = [load_concepts(path, space_id, dim) for path in args.files]
    if not args.files:
        contents.append(concepts_from_json(sys.stdin.read(), "stdin"))
        check_space(contents[0], space_id, dim, "stdin")
    texts = [text for content in contents for text in _say(models, content.concepts, language, args.beam)]
    if args.json:
        print_json({"language": language, "texts": texts, "bundle": models.bundle})
    else:
        print("\n".join(texts))
    return OK


def run_translate(args: argparse.Namespace) -> int:
    """Translates line by line, so that output lines belong to input lines."""
    _check_beam(args.beam)
    config = settings(args)
    models, languages = _load(config, args.inputs, args.to)
    to = models.check_language(args.to)
    pairs = []
    for item in _items(models, args.inputs, languages, config):
        text = " ".join(_say(models, item.concepts, to, args.beam)) if len(item.concepts) else ""
        found = (
            {} if item.probability is None else {"language": item.language, "language_probability": item.probability}
        )
        pairs.append({"source": item.source, "text": text, **found})
        if not args.json:
            print(text, flush=True)
    if args.json:
        print_json({"language": ",".join(languages), "to": to, "items": pairs, "bundle": models.bundle})
    return OK


def _models(
    config: "AgentConfig", *, typed: bool, heard: Sequence[str], said: bool, check: Callable[["Models"], object]
) -> "Models":
    from agent.inference.models import Models, needed_parts

    return Models.load(
        config.bundle,
        device=config.device,
        precision=config.precision,
        backend=config.backend,
        parts=needed_parts(typed=typed, heard=heard, said=said),
        check=check,
    )


def _load(config: "AgentConfig", inputs: Sequence[str], to: str | None = None) -> tuple["Models", tuple[str, ...]]:
    """Models that understand what is given, and the languages that it may be in, as the bundle writes them."""
    for text in inputs:
        _check_is_there(text)
    sounds = sum(map(_is_sound, inputs))
    typed = sounds < len(inputs) or not inputs
    if typed:
        check_typed(config.language)

    def check(models: "Models") -> None:
        models.check_languages(config.language, speech=sounds > 0)
        if to is not None:
            models.check_language(to)

    heard = named(config.language) if sounds else ()
    models = _models(config, typed=typed, heard=heard, said=to is not None, check=check)
    if is_open(config.language):
        models.prepare_to_identify(config.language)
    return models, models.check_languages(config.language, speech=sounds > 0)


def _say(models: "Models", concepts: "FloatArray", language: str, beam: int) -> list[str]:
    import torch

    return models.space.decode_text(torch.from_numpy(concepts), language=language, beam=beam)


def _check_beam(beam: int) -> None:
    if not 1 <= beam <= 64:
        raise UsageError(f"--beam {beam}: choose a width from 1 to 64")


def _is_sound(text: str) -> bool:
    return _as_file(text) is not None and not _is_text(Path(text))


def _as_file(text: str) -> Path | None:
    """An argument is a file if there is one of that name."""
    try:
        path = Path(text)
        if len(text) < 4096 and path.is_dir() and len(path.parts) + text.count("/") > 1:
            raise UsageError(f"{text}: a folder; give the files in it")
        return path if len(text) < 4096 and path.is_file() else None
    except (OSError, ValueError):
        return None


def _check_is_there(text: str) -> None:
    if _as_file(text) is None and Path(text).suffix.lower() in (*_SOUND_SUFFIXES, ".npz", *_TEXT_SUFFIXES):
        raise UsageError(f"{text}: no such file")


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in _TEXT_SUFFIXES


def _items(models: "Models", inputs: Sequence[str], languages: Sequence[str], config: "AgentConfig") -> Iterator[_Item]:
    """What was given, in order; nothing at all is an error."""
    if not inputs and sys.stdin.isatty():
        raise UsageError("nothing to do; give text, a file, or pipe text in")
    count = 0
    given: Sequence[str | None] = inputs or [None]
    for text in given:
        for item in _items_of(models, text, languages, config):
            count += len(item.concepts)
            yield item
    if count == 0:
        raise TextInputError("there is nothing in it: no words, and no speech; give some")


def _items_of(models: "Models", text: str | None, languages: Sequence[str], config: "AgentConfig") -> Iterator[_Item]:
    language = languages[0]  # of text: there is no other
    if text is None:
        yield from _lines(models, _read_lines(sys.stdin), language)
        return
    path = _as_file(text)
    if path is None:
        yield from _lines(models, iter([text]), language)
    elif _is_text(path):
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from _lines(models, _read_lines(file), language)
    else:
        yield from _utterances(models, path, languages, config)


def _read_lines(file: TextIO) -> Iterator[str]:
    """Its lines; of one that does not end, no more than what is refused as too long."""
    from agent.inference.models import MAX_TEXT_CHARS

    while line := file.readline(MAX_TEXT_CHARS + 2):
        yield line.rstrip("\n")


def _lines(models: "Models", lines: Iterator[str], language: str) -> Iterator[_Item]:
    """Text line by line; the model sees many lines at once."""
    from agent.inference.models import MAX_TEXT_CHARS
    from lcm.space.sentences import split_sentences

    while batch := list(islice(lines, _LINES_AT_ONCE)):
        if any(len(line) > MAX_TEXT_CHARS for line in batch):
            raise TextInputError(f"a line has more than {MAX_TEXT_CHARS} characters; split it")
        sentences = [tuple(split_sentences(line, language)) for line in batch]
        flat = [sentence for parts in sentences for sentence in parts]
        concepts = models.encode_sentences(flat, language).concepts
        start = 0
        for line, parts in zip(batch, sentences, strict=True):
            yield _Item(line, parts, concepts[start : start + len(parts)], language)
            start += len(parts)


def _utterances(models: "Models", path: Path, languages: Sequence[str], config: "AgentConfig") -> Iterator[_Item]:
    """A sound file utterance by utterance, in constant memory."""
    from agent.core.inputs import EncodeSpeech
    from audio.files import iter_audio_frames
    from audio.segmenter import Segmenter, Utterance
    from audio.vad import load_vad

    candidates = tuple(languages) if len(languages) > 1 else ()
    vad, segmenter = load_vad(config.vad.name), Segmenter(config.segmenter.options(config.vad.name))

    def events() -> Iterator[object]:
        for frame in iter_audio_frames(path):
            yield from segmenter.push(frame, vad.probability(frame))
        yield from segmenter.flush()

    for event in events():
        if isinstance(event, Utterance):
            request = EncodeSpeech(0, 0, 0, event.samples, languages[0], candidates=candidates)
            [heard] = models.encode_speech([request]) or []
            place = f"{path.name} {event.start_sample / 16_000:.2f}-{event.end_sample / 16_000:.2f} s"
            yield _Item(place, (place,), heard.concepts, heard.language or languages[0], heard.probability)
