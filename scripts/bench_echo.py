"""Score the echo guard: replies that their own echo would interrupt, and people who cut in, in simulated rooms."""

import argparse
import asyncio
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from audio.echo_scoreboard import echo_scoreboard, format_scoreboard
from audio.errors import AudioFileError
from audio.files import read_audio
from audio.frames import FloatArray
from audio.languages import VARIANTS
from audio.voice import Voice
from lcm.training.data import DEFAULT_DATA, LANGUAGES, SPLITS, read_lines, read_recordings, split_recordings

SHORTEST_S, LONGEST_S = 1.5, 9.0
"""Of what people say"""
FEWEST_CHARS, MOST_CHARS = 30, 110
"""Of the sentences of a reply"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the recordings lie, and how many calls there are."""
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with speech and text (%(default)s)")
    parser.add_argument("--calls", type=int, default=200, help="how many (%(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="dev", help="whose voices cut in (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of rooms, texts and voices (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The scoreboard; a table for people goes to stderr."""
    chance = np.random.default_rng(args.seed)
    replies = asyncio.run(_replies(args.data, 2 * args.calls, chance))
    people = _people(args.data, args.split, args.calls, chance)
    board = echo_scoreboard(replies, people, _unpacked(args.data / "speech" / "noise.tar"), args.seed)
    print(format_scoreboard(board), file=sys.stderr)
    return {"split": args.split, "seed": args.seed} | board


async def _replies(data: Path, count: int, chance: np.random.Generator) -> list[FloatArray]:
    """One to three sentences of a language, in the voice's usual timbre or another."""
    sentences = {}
    for language, name in zip(LANGUAGES, ("en", "fr", "es", "de"), strict=True):
        lines = read_lines(data / f"text/sentences/commonvoice.{name}.txt.xz")
        sentences[language] = [line for line in lines if FEWEST_CHARS <= len(line) <= MOST_CHARS]
    replies = []
    async with Voice() as voice:
        for _ in range(count):
            language = LANGUAGES[int(chance.integers(len(LANGUAGES)))]
            variant = VARIANTS[int(chance.integers(len(VARIANTS)))] if chance.integers(2) else None
            chosen = chance.integers(len(sentences[language]), size=int(chance.integers(1, 4)))
            spoken = [await voice.synthesize(sentences[language][i], language, variant=variant) for i in chosen]
            replies.append(np.concatenate(spoken))
    return replies


def _people(data: Path, split: str, count: int, chance: np.random.Generator) -> list[FloatArray]:
    """As many of every corpus of the split."""
    corpora: dict[str, list[str]] = {}
    for recording in split_recordings(read_recordings(data))[split]:  # type: ignore[index]
        if SHORTEST_S <= recording.seconds <= LONGEST_S:
            corpora.setdefault(recording.corpus, []).append(recording.file)
    names = sorted(corpora)
    chosen = [
        (name, corpora[name][int(chance.integers(len(corpora[name])))]) for name in names * -(-count // len(names))
    ]
    files = {name: {file for corpus, file in chosen[:count] if corpus == name} for name in names}
    sounds = {name: _unpacked(data / "speech" / f"{name}.tar", files[name]) for name in names}
    return [sounds[name][Path(file).stem] for name, file in chosen[:count]]


def _unpacked(archive: Path, files: set[str] | None = None) -> dict[str, FloatArray]:
    """Recordings of an archive by name."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    if member.isfile() and (files is None or Path(member.name).name in files):
                        tar.extract(member, folder, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise AudioFileError(
                f"{archive}: cannot be unpacked ({error}); point --data at the training data"
            ) from error
        sounds = (path for path in Path(folder).rglob("*") if path.suffix in {".flac", ".opus", ".mp3", ".wav"})
        return {path.stem: read_audio(path) for path in sounds}
