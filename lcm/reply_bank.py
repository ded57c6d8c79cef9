"""Reply bank: a predicted concept in, the nearest sentence that people really said out. Fluent in every language.

An entry is one concept and its sentence in each language that has a good one. What scores is the cosine to the
prediction (or of the entry's key to the query, where the model has them), less half the entry's popularity (its mean
cosine to the predictions nearest to it), as in CSLS [Conneau et al. 2018, §2.3]: a few sentences lie near everything
and would be said all the time. Knows nothing of how concepts are predicted.
"""

import json
import lzma
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.bundle import Bundle
from lcm.errors import BundleError, ContextError, LanguageError
from lcm.space.languages import base_language

PART = "bank"
TEXTS = "texts.json.xz"
ECHO_COSINE = 0.9
_MAX_TEXT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class BankReply:
    """One entry, in one language."""

    text: str
    concept: Tensor  # [C] float32
    score: float
    index: int


class ReplyBank:
    """Sentences and their concepts, in memory."""

    def __init__(
        self,
        concepts: Tensor,
        popularity: Tensor,
        texts: Sequence[dict[str, str]],
        hubness: float,
        keys: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`concepts` [N, C], `popularity` [N], one `{language: sentence}` each, and how much popularity counts.

        `keys` maps concepts [N, C] to unit vectors [N, K] by which they are found, if not by themselves.
        """
        self.concepts, self.texts = concepts, list(texts)
        self._unit = F.normalize(concepts, dim=1)
        self._keys = keys(concepts) if keys else self._unit
        self._handicap = hubness * popularity
        self.languages = sorted({language for entry in texts for language in entry})
        self._spoken = {language: torch.tensor([language in entry for entry in texts]) for language in self.languages}
        self._entries_of: dict[str, list[int]] = {}
        for index, entry in enumerate(self.texts):
            for text in entry.values():
                self._entries_of.setdefault(text, []).append(index)

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def load(cls, bundle: str | Path, keys: Callable[[Tensor], Tensor] | None = None) -> "ReplyBank":
        """The bank of a bundle, by name or folder; `keys` of the engine that asks.

        Raises:
            BundleError: missing, damaged, without a bank, or with one of another space.
        """
        part = Bundle.open(bundle).part(PART)
        tensors = part.tensors()
        try:
            texts = json.loads(_unpacked(part.sidecar(TEXTS)))
        except (lzma.LZMAError, ValueError) as error:
            raise BundleError(f"the reply bank of {part.folder} is damaged ({error}); restore the bundle") from error
        concepts = tensors["concepts"].float() * tensors["scales"][:, None]
        return cls(concepts, tensors["popularity"], texts, part.config["hubness"], keys)

    def nearest(
        self, choosing: Tensor, language: str, exclude: Collection[str | int] = (), avoid: Tensor | None = None
    ) -> BankReply:
        """The best entry for what a model chooses by; see `best`."""
        return self.best(choosing, language, 1, exclude, avoid)[0]

    def best(
        self,
        choosing: Tensor,
        language: str,
        count: int,
        exclude: Collection[str | int] = (),
        avoid: Tensor | None = None,
    ) -> list[BankReply]:
        """The `count` best entries, best first.

        Args:
            choosing: [C] what the model predicted, or [K] its query.
            language: only entries with a sentence in it.
            count: how many, at least one.
            exclude: sentences (in any language) or indices that shall not be said; ignored rather than leave nothing.
            avoid: [K, C] concepts that the reply shall not repeat, such as the user's own.

        Raises:
            LanguageError: the bank speaks no such language.
            ContextError: not one finite vector of the size of the bank's keys.
        """
        tag = base_language(language)
        if tag not in self._spoken:
            raise LanguageError(f"the reply bank has no {language!r}; choose one of: {', '.join(self.languages)}")
        if choosing.shape != self._keys.shape[1:] or not bool(torch.isfinite(choosing).all()):
            raise ContextError(f"give one finite vector, [{self._keys.shape[1]}], not {tuple(choosing.shape)}")
        scores = self._keys @ F.normalize(choosing.float(), dim=0) - self._handicap
        allowed = self._spoken[tag] & self._fresh(exclude, avoid)
        if not bool(allowed.any()):
            allowed = self._spoken[tag]
        top = scores.masked_fill(~allowed, float("-inf")).topk(min(count, int(allowed.sum())))
        return [
            BankReply(self.texts[index][tag], self.concepts[index], score, index)
            for score, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]

    def _fresh(self, exclude: Collection[str | int], avoid: Tensor | None) -> Tensor:
        """[N]: entries that nobody has said."""
        fresh = torch.ones(len(self), dtype=torch.bool)
        said = [i for e in exclude for i in ([e] if isinstance(e, int) else self._entries_of.get(e, []))]
        fresh[said] = False
        if avoid is not None and len(avoid):
            echoes = (self._unit @ F.normalize(avoid.float(), dim=1).T).amax(dim=1) >= ECHO_COSINE
            fresh &= ~echoes
        return fresh


def _unpacked(content: bytes) -> bytes:
    """What a sidecar holds; one that would fill the memory is refused."""
    decompressor = lzma.LZMADecompressor()
    unpacked = decompressor.decompress(content, max_length=_MAX_TEXT_BYTES)
    if not decompressor.eof:
        raise ValueError(f"cut short, or over {_MAX_TEXT_BYTES} bytes of text")
    return unpacked


def packed(concepts: Tensor, popularity: Tensor, texts: Sequence[dict[str, str]]) -> tuple[dict[str, Any], bytes]:
    """Tensors and sidecar of a bank as a bundle holds them: one byte a dimension costs a cosine of about 1e-4."""
    scales = concepts.abs().amax(dim=1) / 127
    tensors = {
        "concepts": (concepts / scales[:, None]).round().to(torch.int8),
        "scales": scales,
        "popularity": popularity,
    }
    return tensors, lzma.compress(json.dumps(list(texts), ensure_ascii=False).encode(), preset=9)
