"""What a command is given: text, text files, sound files or stdin in; sentences or utterances with their concepts out.

Line by line, so that what is said of a line stands beside it; or paragraph by paragraph, where lines that follow one
another belong together. Knows nothing of what is done with the concepts.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from agent.commands.options import LANGUAGE_HELP, add_json_option, add_model_options
from agent.errors import TextInputError, UsageError
from agent.language_choice import check_typed, is_open, named

if TYPE_CHECKING:
    from agent.config import AgentConfig
    from agent.core.events import FloatArray
    from agent.inference.models import Models

_AT_ONCE = 32
_TEXT_SUFFIXES = (".txt", ".md", ".text")
_SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")


@dataclass(frozen=True, slots=True, eq=False)
class GivenItem:
    """One line of text, one paragraph, or one utterance."""

    source: str
    sentences: tuple[str, ...]
    concepts: "FloatArray"
    """[N, D]"""
    language: str
    probability: float | None = None
    """Of the language, where it was found out"""
    heard: bool = False


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """What to understand, and with which models."""
    parser.add_argument(
        "inputs", nargs="*", metavar="TEXT|FILE", help="text, a text file or a sound file (default: stdin)"
    )
    parser.add_argument("--language", metavar="L", help=f"what is spoken or written, {LANGUAGE_HELP}")
    add_json_option(parser)
    add_model_options(parser)


def loaded(
    config: "AgentConfig", *, typed: bool, heard: Sequence[str], said: bool, check: Callable[["Models"], object]
) -> "Models":
    """The models that a command needs; `check` is asked before anything large is loaded."""
    from agent.inference.models import Models, needed_parts

    return Models.load(
        config.bundle,
        device=config.device,
        precision=config.precision,
        backend=config.backend,
        parts=needed_parts(typed=typed, heard=heard, said=said),
        check=check,
    )


def understanding(
    config: "AgentConfig",
    inputs: Sequence[str],
    to: str | None = None,
    *,
    said: bool | None = None,
    check: Callable[["Models"], object] = lambda models: None,
) -> tuple["Models", tuple[str, ...]]:
    """Models that understand what is given, and the languages that it may be in, as the bundle writes them.

    Args:
        config: bundle, device, language and the like.
        inputs: what was given on the command line.
        to: the language to say it in.
        said: whether concepts are put into words; left out, only where `to` is named.
        check: what else has to hold, asked before anything large is loaded.
    """
    for text in inputs:
        _check_is_there(text)
    sounds = sum(map(_is_sound, inputs))
    typed = sounds < len(inputs) or not inputs
    if typed:
        check_typed(config.language)

    def checked(models: "Models") -> None:
        models.check_languages(config.language, speech=sounds > 0)
        if to is not None:
            models.check_language(to)
        check(models)

    heard = named(config.language) if sounds else ()
    models = loaded(config, typed=typed, heard=heard, said=to is not None if said is None else said, check=checked)
    if is_open(config.language):
        models.prepare_to_identify(config.language)
    return models, models.check_languages(config.language, speech=sounds > 0)


def given_items(
    models: "Models",
    inputs: Sequence[str],
    languages: Sequence[str],
    config: "AgentConfig",
    *,
    by_paragraph: bool = False,
) -> Iterator[GivenItem]:
    """What was given, in order; nothing at all is an error.

    Args:
        models: that understand it.
        inputs: from the command line; none: stdin.
        languages: that it may be in.
        config: how speech is found in sound.
        by_paragraph: text that no empty line interrupts is one item; otherwise each line is one.
    """
    if not inputs and sys.stdin.isatty():
        raise UsageError("nothing to do; give text, a file, or pipe text in")
    count = 0
    given: Sequence[str | None] = inputs or [None]
    for text in given:
        for item in _items_of(models, text, languages, config, by_paragraph=by_paragraph):
            count += len(item.concepts)
            yield item
    if count == 0:
        raise TextInputError("there is nothing in it: no words, and no speech; give some")


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


def _items_of(
    models: "Models", text: str | None, languages: Sequence[str], config: "AgentConfig", *, by_paragraph: bool
) -> Iterator[GivenItem]:
    language = languages[0]  # of text: there is no other

    def written(lines: Iterator[str]) -> Iterator[GivenItem]:
        if by_paragraph:
            return _written(models, _paragraphs(lines), language, "paragraph")
        return _written(models, lines, language, "line")

    path = None if text is None else _as_file(text)
    if text is None:
        yield from written(_read_lines(sys.stdin))
    elif path is None:
        yield from written(iter(text.split("\n") if by_paragraph else [text]))
    elif _is_text(path):
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from written(_read_lines(file))
    else:
        yield from _utterances(models, path, languages, config)


def _read_lines(file: TextIO) -> Iterator[str]:
    """Its lines; of one that does not end, no more than what is refused as too long."""
    from agent.inference.models import MAX_TEXT_CHARS

    while line := file.readline(MAX_TEXT_CHARS + 2):
        yield line.rstrip("\n")


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """Lines between empty ones, joined; one that does not end is given once it is too long, and refused."""
    from agent.inference.models import MAX_TEXT_CHARS

    paragraph: list[str] = []
    length = 0
    for line in lines:
        if line.strip():
            paragraph.append(line.strip())
            length += len(paragraph[-1]) + 1
        if paragraph and (not line.strip() or length > MAX_TEXT_CHARS + 1):
            yield " ".join(paragraph)
            paragraph, length = [], 0
    if paragraph:
        yield " ".join(paragraph)


def _written(models: "Models", texts: Iterator[str], language: str, kind: str) -> Iterator[GivenItem]:
    """Lines or paragraphs; the model sees many at once."""
    from agent.inference.models import MAX_TEXT_CHARS
    from lcm.space.sentences import split_sentences

    while batch := list(islice(texts, _AT_ONCE)):
        if any(len(text) > MAX_TEXT_CHARS for text in batch):
            raise TextInputError(f"a {kind} has more than {MAX_TEXT_CHARS} characters; split it")
        sentences = [tuple(split_sentences(text, language)) for text in batch]
        flat = [sentence for parts in sentences for sentence in parts]
        concepts = models.encode_sentences(flat, language).concepts
        start = 0
        for text, parts in zip(batch, sentences, strict=True):
            yield GivenItem(text, parts, concepts[start : start + len(parts)], language)
            start += len(parts)


def _utterances(models: "Models", path: Path, languages: Sequence[str], config: "AgentConfig") -> Iterator[GivenItem]:
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
            language = heard.language or languages[0]
            yield GivenItem(place, (place,), heard.concepts, language, heard.probability, heard=True)
