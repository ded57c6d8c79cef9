"""Tokenizer: sentences in, SONAR token ids out, and back. Knows nothing of tensors or models.

SentencePiece with the id layout of NLLB and SONAR [SONAR repository]: id = SentencePiece id + 1, `<pad>` = 0,
one `__lang__` control symbol a language, inside the model or after all its pieces. Source: `__lang__ … </s>`; target
prefix: `</s> __lang__`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece as spm

from lcm.errors import BundleError
from lcm.space.languages import Languages

PAD = 0
_INTERNAL_SYMBOLS = 3
"""That NLLB has after its languages and nobody uses"""


class Tokenizer:
    """A SentencePiece model and the languages whose control symbols it holds."""

    def __init__(self, model: bytes, languages: Sequence[str]) -> None:
        self.model = model
        self._pieces = spm.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise BundleError(f"the tokenizer model cannot be read ({error}); fetch the bundle again") from error
        self.languages = list(languages)
        self._known = Languages(languages, "this bundle")
        self._after_pieces: int = self._pieces.GetPieceSize() + 1
        self.vocab_size = self._after_pieces
        unknown = self._pieces.unk_id()
        ids = {tag: self._pieces.PieceToId(f"__{tag}__") for tag in languages}
        self._language_ids = {tag: piece + 1 for tag, piece in ids.items() if piece != unknown}
        if not self._language_ids:  # NLLB's model has no symbols for them: they follow after its pieces, in order
            self._language_ids = {tag: self._after_pieces + number for number, tag in enumerate(languages)}
            self.vocab_size += len(languages) + _INTERNAL_SYMBOLS
        elif missing := [tag for tag in languages if tag not in self._language_ids]:
            raise BundleError(f"the tokenizer has no symbol for language {missing[0]!r}; fetch the bundle again")
        self.eos: int = self._pieces.eos_id() + 1
        self.unk: int = self._pieces.unk_id() + 1

    @classmethod
    def from_file(cls, path: Path, languages: Sequence[str]) -> "Tokenizer":
        """Read `tokenizer.model`.

        Raises:
            BundleError: the file is missing, not a SentencePiece model, or lacks one of `languages`.
        """
        try:
            return cls(path.read_bytes(), languages)
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror}; fetch the bundle again") from error

    def language_id(self, language: str) -> int:
        """Token id of the language's control symbol.

        Raises:
            LanguageError: the bundle does not hold `language`; says which come nearest.
        """
        return self._language_ids[self._known.resolve(language)]

    def encode(self, text: str) -> list[int]:
        """Pieces of one sentence, without tags."""
        return [piece + 1 for piece in self._pieces.EncodeAsIds(text)]

    def encode_source(self, text: str, language: str, *, max_tokens: int) -> list[int]:
        """`__lang__ … </s>`, cut to at most `max_tokens` ids."""
        return [self.language_id(language), *self.encode(text)[: max_tokens - 2], self.eos]

    def target_prefix(self, language: str) -> list[int]:
        """`</s> __lang__`: what the decoder starts from."""
        return [self.eos, self.language_id(language)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; padding, tags and the end symbol vanish."""
        tags = {PAD, self.eos, *self._language_ids.values()}
        return str(self._pieces.DecodeIds([i - 1 for i in ids if i not in tags and i < self._after_pieces])).strip()
