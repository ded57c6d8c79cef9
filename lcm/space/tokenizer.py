"""Tokenizer: sentences in, SONAR token ids out, and back. Knows nothing of tensors or models.

SentencePiece with the id layout of NLLB and SONAR [SONAR repository]: id = SentencePiece id + 1, `<pad>` = 0,
one `__lang__` control symbol a language. Source: `__lang__ … </s>`; target prefix: `</s> __lang__`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece as spm

from lcm.errors import BundleError, LanguageError

PAD = 0


def base_language(tag: str) -> str:
    """`eng_Latn` → `eng`: the language without its script."""
    return tag.split("_", 1)[0].casefold()


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
        self._language_ids = {}
        for language in languages:
            piece = self._pieces.PieceToId(f"__{language}__")
            if piece == self._pieces.unk_id():
                raise BundleError(f"the tokenizer has no symbol for language {language!r}; fetch the bundle again")
            self._language_ids[base_language(language)] = piece + 1
        self.eos: int = self._pieces.eos_id() + 1
        self.unk: int = self._pieces.unk_id() + 1
        self.vocab_size: int = self._pieces.GetPieceSize() + 1

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
            LanguageError: the bundle does not hold `language`.
        """
        try:
            return self._language_ids[base_language(language)]
        except KeyError:
            known = ", ".join(sorted(self._language_ids))
            raise LanguageError(f"language {language!r} is not in this bundle; choose one of: {known}") from None

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
        return str(self._pieces.DecodeIds([i - 1 for i in ids if i not in tags])).strip()
