"""Mutual information of a sentence and its context [LCM §3.1]: sentences and a language model in, nats a token out.

MI = (log p(ŝ | s₋₁₀ … s₋₁) − log p(ŝ)) / |ŝ|: how much likelier a sentence gets by what was said before it. It is 0 for
a sentence that has nothing to do with its context, and below 0 for one that contradicts it. Knows nothing of concepts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lcm.errors import TrainingDataError

CONTEXT_SENTENCES = 10
"""k of the paper"""
_LONGEST_SENTENCE = 64
_BATCH = 32

Floats = np.ndarray[Any, np.dtype[np.float64]]


class TokenModel(Protocol):
    """A causal language model. Shapes: B rows, T tokens, M wanted tokens."""

    name: str
    longest: int
    """tokens that it reads at once"""

    def opening(self, language: str) -> list[int]:
        """What stands before every sentence, so that its first token has something to follow."""
        ...

    def sentence(self, text: str) -> list[int]:
        """Its tokens."""
        ...

    def log_probabilities(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Log-probability of each token `wanted` [B, T] given those before it: [M], row by row; never the first."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence after what was said before it."""

    text: str
    context: tuple[str, ...]
    language: str


@dataclass(frozen=True, slots=True)
class Gains:
    """What the context is worth to each sentence."""

    nats: Floats  # [N] log p(s | context) − log p(s)
    tokens: Floats  # [N]

    @property
    def mean(self) -> float:
        """Nats a token; as in the paper, long sentences count for more."""
        return float(self.nats.sum() / self.tokens.sum())


def gains(model: TokenModel, said: Sequence[Said]) -> Gains:
    """Of each sentence; one without words costs nothing and weighs nothing."""
    alone = [_sequence(model, Said(s.text, (), s.language)) for s in said]
    after = [_sequence(model, s) for s in said]
    costs = _log_probabilities(model, [*alone, *after])
    return Gains(costs[len(said) :] - costs[: len(said)], np.array([count for _, count in alone], dtype=np.float64))


def perplexity(model: TokenModel, said: Sequence[Said]) -> float:
    """Of the sentences' tokens, each after its context."""
    sequences = [_sequence(model, s) for s in said]
    return math.exp(-_log_probabilities(model, sequences).sum() / sum(count for _, count in sequences))


def _sequence(model: TokenModel, said: Said) -> tuple[list[int], int]:
    """Tokens of the latest whole sentences that fit and of the sentence itself; how many at the end are its own."""
    opening = model.opening(said.language)
    own = model.sentence(said.text)[:_LONGEST_SENTENCE]
    tokens = [*opening, *own]
    for text in reversed(said.context[-CONTEXT_SENTENCES:]):
        before = [*opening, *model.sentence(text)]
        if len(before) + len(tokens) > model.longest:
            break
        tokens = before + tokens
    return tokens, len(own)


def _log_probabilities(model: TokenModel, sequences: Sequence[tuple[list[int], int]]) -> Floats:
    """The sum over each sequence's own tokens, [N]; those of a length together."""
    sums = np.zeros(len(sequences))
    order = sorted((i for i in range(len(sequences)) if sequences[i][1]), key=lambda i: len(sequences[i][0]))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        width = max(len(sequences[i][0]) for i in rows)
        tokens, wanted = (
            torch.zeros(len(rows), width, dtype=torch.int64),
            torch.zeros(len(rows), width, dtype=torch.bool),
        )
        for at, (ids, count) in enumerate(sequences[i] for i in rows):
            tokens[at, : len(ids)] = torch.tensor(ids)
            wanted[at, len(ids) - count : len(ids)] = True
        scores = model.log_probabilities(tokens, wanted)
        owner = wanted.nonzero()[:, 0]
        sums[rows] = torch.zeros(len(rows)).index_add_(0, owner, scores.float()).double().numpy()
    return sums


class FolderJudge:
    """Any causal language model of Hugging Face in a local folder (GPT-2, as in the paper): a `TokenModel`."""

    def __init__(self, folder: Path) -> None:
        """Load from safetensors; nothing is fetched.

        Raises:
            TrainingDataError: `transformers` is missing, or there is no such model.
        """
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise TrainingDataError("a judge of Hugging Face needs: pip install transformers") from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise TrainingDataError(
                f"no language model with safetensors and tokenizer at {folder} ({error})"
            ) from error
        self._model.train(False)
        self.name = folder.name
        self.longest = int(getattr(self._model.config, "max_position_embeddings", 1024))
        self._opening: list[int] = self.sentence("\n")

    def opening(self, language: str) -> list[int]:
        """A line break, whatever the language, as in the paper."""
        return self._opening

    def sentence(self, text: str) -> list[int]:
        """Its tokens, without any that begin or end a text."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @torch.inference_mode()
    def log_probabilities(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """As the protocol says."""
        logits: Tensor = self._model(tokens[:, :-1]).logits[wanted[:, 1:]]
        return logits.log_softmax(dim=1).gather(1, tokens[:, 1:][wanted[:, 1:]][:, None])[:, 0]
