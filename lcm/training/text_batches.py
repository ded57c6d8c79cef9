"""Text batches: prepared splits in, padded batches of sentence pairs out. Knows nothing of models.

Every sentence is tokenised once, as written and as a speech transcript would have it (lower case, no punctuation).
A single sentence becomes a pair with its own transcript form, so that one training step serves both kinds.
The batches of a chunk depend on the seed and the chunk's number alone: a resumed run sees the same ones.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm
import torch
from torch import Tensor

from lcm.space.tokenizer import PAD, Tokenizer
from lcm.training.data import LANGUAGES, read_split, share, split_path

CHUNK = 40_000  # sentence pairs planned at once


@dataclass(frozen=True, slots=True)
class TextMix:
    """What a chunk is drawn from and how sources are spoiled."""

    parallel_share: float = 0.7
    transcript_share: float = 0.3
    denoise_share: float = 0.1
    language_weights: tuple[tuple[str, float], ...] = (("eng", 0.5), ("fra", 0.2), ("spa", 0.12), ("deu", 0.18))
    tokens_a_side: int = 1_800
    max_tokens: int = 64


@dataclass(frozen=True, slots=True)
class TextBatch:
    """One step's sentences: side A and side B of each pair, stacked: rows 0 … B−1 are A, B … 2B−1 are B."""

    sources: Tensor  # [2B, T] what the encoder reads: `__lang__ … </s>`, possibly spoiled
    targets: Tensor  # [2B, T'] what the decoder must write: `</s> __lang__ … </s>`
    groups: Tensor  # [2B] sentences of one group mean the same: never negatives of each other


def transcript(text: str) -> str:
    """How a speech transcript would write it: lower case, apostrophes and hyphens the only marks."""
    kept = "".join(c if c.isalnum() or c in "'’-" or unicodedata.category(c)[0] == "M" else " " for c in text)
    return " ".join(kept.lower().split())


def train_tokenizer(folder: Path, vocab_size: int, languages: Sequence[str] = LANGUAGES) -> Tokenizer:
    """A unigram SentencePiece model with byte fallback, from training sentences only, languages balanced."""
    rng = np.random.default_rng(0)
    texts: dict[str, list[str]] = {language: [] for language in languages}
    for pair in read_split(folder, "parallel.train"):
        for language, text in zip(pair["languages"], pair["texts"], strict=True):
            texts[language].append(text)
    for row in read_split(folder, "sentences.train"):
        texts[row["language"]].append(row["text"])
    sample: list[str] = []
    for language in languages:
        unique = sorted(set(texts[language]))
        chosen = [unique[i] for i in rng.permutation(len(unique))[:150_000]]
        sample += [transcript(t) if i % 10 < 3 else t for i, t in enumerate(chosen)]
    model_path = folder / "tokenizer"
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(sample),
        model_prefix=str(model_path),
        vocab_size=vocab_size - 1,  # id 0 is padding
        model_type="unigram",
        character_coverage=0.9999,
        byte_fallback=True,
        control_symbols=[f"__{language}__" for language in languages],
        num_threads=2,
        minloglevel=1,
    )
    return Tokenizer.from_file(model_path.with_suffix(".model"), languages)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Many token sequences in one array."""

    ids: np.ndarray[Any, np.dtype[np.uint16]]
    starts: np.ndarray[Any, np.dtype[np.int64]]

    def __getitem__(self, index: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
        return self.ids[self.starts[index] : self.starts[index + 1]]

    @classmethod
    def of(cls, sequences: Iterable[list[int]]) -> "Tokens":
        """Pack the sequences."""
        lengths, flat = [0], []
        for sequence in sequences:
            lengths.append(len(sequence))
            flat.append(np.asarray(sequence, dtype=np.uint16))
        return cls(np.concatenate(flat), np.cumsum(np.asarray(lengths, dtype=np.int64)))


@dataclass(frozen=True, slots=True)
class TextCorpus:
    """All training sentences as tokens; pairs and single sentences are rows of indices into them."""

    written: Tokens
    spoken: Tokens
    languages: np.ndarray[Any, np.dtype[np.int64]]  # [N] index into `language_names`
    language_names: tuple[str, ...]
    pairs: np.ndarray[Any, np.dtype[np.int64]]  # [P, 3] sentence, sentence, group
    singles: np.ndarray[Any, np.dtype[np.int64]]  # [S]

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer) -> "TextCorpus":
        """Tokenise the training split; kept beside it for the next start, under the hash of what it was made from."""
        cache = folder / f"tokens.{_made_from(folder, tokenizer)}.npz"
        if not cache.exists():
            for stale in folder.glob("tokens*.npz"):
                stale.unlink()
            _tokenise(folder, tokenizer, cache)
        with np.load(cache) as arrays:
            return cls(
                Tokens(arrays["written"], arrays["written_starts"]),
                Tokens(arrays["spoken"], arrays["spoken_starts"]),
                arrays["languages"],
                tuple(tokenizer.languages),
                arrays["pairs"],
                arrays["singles"],
            )


def _made_from(folder: Path, tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256(tokenizer.model)
    for name in ("parallel.train", "sentences.train"):
        with split_path(folder, name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _tokenise(folder: Path, tokenizer: Tokenizer, cache: Path) -> None:
    index: dict[tuple[str, str], int] = {}

    def number(language: str, text: str) -> int:
        return index.setdefault((language, text), len(index))

    pairs = [
        (*(number(lang, t) for lang, t in zip(p["languages"], p["texts"], strict=True)), p["component"])
        for p in read_split(folder, "parallel.train")
    ]
    singles = [number(row["language"], row["text"]) for row in read_split(folder, "sentences.train")]
    written = Tokens.of(tokenizer.encode(text) for _, text in index)
    spoken = Tokens.of(tokenizer.encode(transcript(text)) for _, text in index)
    names = list(tokenizer.languages)
    aside = cache.with_name(f".{cache.name}")
    np.savez(
        aside,
        written=written.ids, written_starts=written.starts, spoken=spoken.ids, spoken_starts=spoken.starts,
        languages=np.array([names.index(language) for language, _ in index]),
        pairs=np.array(pairs, dtype=np.int64), singles=np.array(singles, dtype=np.int64),
    )  # fmt: skip
    aside.replace(cache)


def batches(
    corpus: TextCorpus, tokenizer: Tokenizer, mix: TextMix, seed: int, chunk: int
) -> list[Callable[[], TextBatch]]:
    """The shuffled batches of one chunk, each built when called."""
    rng = np.random.default_rng((seed, chunk))
    rows = _drawn(corpus, mix, rng)
    lengths = np.maximum(_lengths(corpus.written, rows[:, 0]), _lengths(corpus.written, rows[:, 1]))
    rows, lengths = rows[lengths <= mix.max_tokens], lengths[lengths <= mix.max_tokens]
    buckets = (lengths + 1) // 2
    order = np.lexsort((rng.random(len(rows)), buckets))
    plans: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    for bucket in np.unique(buckets):
        members = order[buckets[order] == bucket]
        size = max(8, mix.tokens_a_side // (2 * int(bucket) + 2))
        plans += [rows[members[i : i + size]] for i in range(0, len(members), size) if len(members) - i >= 8]
    made = [_Builder(corpus, tokenizer, mix, plan, int(rng.integers(2**31))) for plan in plans]
    return [made[i] for i in rng.permutation(len(made))]


def _lengths(tokens: Tokens, rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return tokens.starts[rows + 1] - tokens.starts[rows]


def _drawn(corpus: TextCorpus, mix: TextMix, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[CHUNK, 3]: sentence A, sentence B, group; A = B for a single sentence."""
    n_pairs = int(CHUNK * mix.parallel_share) if len(corpus.pairs) else 0
    pairs = corpus.pairs[rng.integers(len(corpus.pairs), size=n_pairs)] if n_pairs else corpus.pairs[:0]
    flip = rng.random(n_pairs) < 0.5  # noqa: PLR2004
    pairs = np.where(flip[:, None], pairs[:, [1, 0, 2]], pairs)
    singles = []
    for name, weight in mix.language_weights:
        of_language = corpus.singles[corpus.languages[corpus.singles] == corpus.language_names.index(name)]
        if len(of_language):
            singles.append(rng.choice(of_language, size=int((CHUNK - n_pairs) * weight)))
    single = np.concatenate(singles)
    # Groups of single sentences start below zero: no Tatoeba component is one of them.
    return np.concatenate([pairs, np.stack([single, single, -1 - single], axis=1)])


@dataclass(frozen=True, slots=True)
class _Builder:
    corpus: TextCorpus
    tokenizer: Tokenizer
    mix: TextMix
    rows: np.ndarray[Any, np.dtype[np.int64]]
    seed: int

    def __call__(self) -> TextBatch:
        rng = np.random.default_rng(self.seed)
        sentences = np.concatenate([self.rows[:, 0], self.rows[:, 1]])
        single = np.tile(self.rows[:, 0] == self.rows[:, 1], 2)
        second = np.arange(len(sentences)) >= len(self.rows)
        eos = self.tokenizer.eos
        sources, targets = [], []
        for sentence, is_single, is_second in zip(sentences, single, second, strict=True):
            tag = self.tokenizer.language_id(self.corpus.language_names[self.corpus.languages[sentence]])
            written = self.corpus.written[sentence].tolist()
            as_spoken = rng.random() < self.mix.transcript_share or (is_single and is_second)
            source = self.corpus.spoken[sentence].tolist() if as_spoken else written
            if rng.random() < self.mix.denoise_share:
                source = spoiled(source, rng, self.tokenizer.unk)
            sources.append([tag, *(source or written)[: self.mix.max_tokens], eos])
            targets.append([eos, tag, *written, eos])
        groups = torch.from_numpy(np.tile(self.rows[:, 2], 2))
        return TextBatch(padded(sources), padded(targets), groups)


def spoiled(ids: list[int], rng: np.random.Generator, unk: int) -> list[int]:
    """Denoising input: a tenth of the tokens gone, a twentieth unknown, neighbours swapped now and then."""
    kept = [unk if rng.random() < 0.05 else i for i in ids if rng.random() >= 0.1] or ids  # noqa: PLR2004
    order = np.argsort(np.arange(len(kept)) + rng.random(len(kept)) * 1.8)
    return [kept[i] for i in order]


def padded(rows: list[list[int]]) -> Tensor:
    """[B, T] int64, `PAD` on the right."""
    out = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out


def held_out_pairs(folder: Path, languages: tuple[str, str], count: int, split: str) -> list[tuple[str, str]]:
    """`count` pairs of a held-out split, unique on both sides, in an order fixed by their text."""
    chosen: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    rows = (p for p in read_split(folder, f"parallel.{split}") if set(p["languages"]) == set(languages))
    for pair in sorted(rows, key=lambda p: share(p["texts"][0] + p["texts"][1], "evaluation")):
        a, b = (pair["texts"][pair["languages"].index(language)] for language in languages)
        if a not in chosen and b not in seen:
            chosen[a] = (a, b)
            seen.add(b)
        if len(chosen) == count:
            break
    return list(chosen.values())


def iterate(
    corpus: TextCorpus, tokenizer: Tokenizer, mix: TextMix, seed: int, chunk: int, skip: int
) -> Iterator[tuple[int, int, TextBatch]]:
    """Endless batches from (`chunk`, `skip`) on, with the position that follows each."""
    while True:
        planned = batches(corpus, tokenizer, mix, seed, chunk)
        for number, build in enumerate(planned):
            if number >= skip:
                yield chunk, number + 1, build()
        chunk, skip = chunk + 1, 0
