"""What a command is given: text, text files, sound files or stdin in; sentences or utterances with their concepts out.

Line by line, so that what is said of a line stands beside it; or paragraph by paragraph, where lines that follow one
another belong together. Knows nothing of what is done with the concepts.
"""

import argparse
import re
import stat
import sys
from codecs import getincrementaldecoder
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
_STDIN = "-"
_SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
_SUFFIXES = (*_SOUND_SUFFIXES, ".npz", ".txt", ".md", ".text")
_ONLY_A_NAME = re.compile(r"(~|\.{0,2})/\S+|\S*\w\.[A-Za-z][A-Za-z0-9]{1,4}")
"""What is hardly text: a path, or one word with an ending"""
_BEGINNING_BYTES = 1024 * 1024
"""Of a file, what is read to see whether it is text"""


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
        "inputs", nargs="*", metavar="TEXT|FILE", help="text, a text file (UTF-8) or a sound file (default: -, stdin)"
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
        inputs: from the command line; `-` or none: stdin.
        languages: that it may be in.
        config: how speech is found in sound.
        by_paragraph: text that no empty line interrupts is one item; otherwise each line is one.
    """
    if not inputs and sys.stdin.isatty():
        raise UsageError("nothing to do; give text, a file, or pipe text in")
    count = 0
    for text in inputs or [_STDIN]:
        for item in _items_of(models, text, languages, config, by_paragraph=by_paragraph):
            count += len(item.concepts)
            yield item
    if count == 0:
        raise TextInputError("there is nothing in it: no words, and no speech; give some")


def _is_sound(text: str) -> bool:
    """Whether it names a sound file; a file of neither sound nor text is refused."""
    path = _as_file(text)
    if path is None:
        return False
    if _holds_sound(path):
        return True
    _check_holds_text(path)
    return False


def _as_file(text: str) -> Path | None:
    """An argument is a file if there is one of that name; what can only be a name has to be one's."""
    if not 0 < len(text) < 4096 or text == _STDIN:
        return None
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        mode = 0
    if stat.S_ISREG(mode):
        return path
    if mode and ("/" in text or text in (".", "..")):
        what = "a folder; give the files in it" if stat.S_ISDIR(mode) else "a pipe or a device; pipe it in and give -"
        raise UsageError(f"{text}: {what}")
    if path.suffix.lower() in _SUFFIXES or _ONLY_A_NAME.fullmatch(text):
        raise UsageError(f"{text}: no such file; text that looks like a name can be piped in")
    return None


def _holds_sound(path: Path) -> bool:
    from audio.files import is_audio

    return path.suffix.lower() in _SOUND_SUFFIXES or is_audio(path)


def _check_holds_text(path: Path) -> None:
    """As far as its beginning shows; the rest is checked as it is read."""
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING_BYTES)
    try:
        text = getincrementaldecoder("utf-8")().decode(beginning, final=len(beginning) < _BEGINNING_BYTES)
    except UnicodeDecodeError as error:
        raise _not_text(path) from error
    if "\0" in text:
        raise _not_text(path)


def _not_text(path: Path) -> TextInputError:
    return TextInputError(
        f"{path}: neither sound nor text in UTF-8; convert text first, from Latin-1 for instance with: "
        "iconv -f latin1 -t utf-8 OLD > NEW"
    )


def _items_of(
    models: "Models", text: str, languages: Sequence[str], config: "AgentConfig", *, by_paragraph: bool
) -> Iterator[GivenItem]:
    language = languages[0]  # of text: there is no other
    path = _as_file(text)

    def written(lines: Iterator[str]) -> Iterator[GivenItem]:
        if by_paragraph:
            return _written(models, filter(_says_something, _paragraphs(lines)), language, "paragraph")
        return _written(models, lines, language, "line")

    if text == _STDIN:
        yield from written(_read_lines(sys.stdin))
    elif path is None:
        yield from written(iter(text.split("\n") if by_paragraph else [text]))
    elif _holds_sound(path):
        yield from _utterances(models, path, languages, config)
    else:
        yield from written(_lines_of(path))


def _lines_of(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from _read_lines(file)
    except UnicodeDecodeError as error:
        raise _not_text(path) from error


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


def _says_something(text: str) -> bool:
    """Of signs alone, such as a row of stars between paragraphs, nothing can be told."""
    return any(map(str.isalnum, text))


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
