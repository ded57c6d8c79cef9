"""Decoding: concepts and a step function in, token ids out. Greedy, sampling and beam, all batched over a KV cache.

Knows nothing of text. Finished sentences leave the batch, so a long one does not make the short ones wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcm.space.text_decoder import DecoderState, TextDecoder
from lcm.space.tokenizer import PAD

Interrupted = Callable[[], bool]


class DecodingCancelled(Exception):
    """The caller no longer wants the result; raised between two steps."""


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How to search."""

    beam: int = 1
    """1 is greedy; SONAR's own pipelines take 5"""
    max_tokens: int | None = None
    """Between prefix and end; None is what the decoder's bundle says"""
    length_penalty: float = 1.0
    """A hypothesis of n tokens scores log p / n ** this"""
    temperature: float = 0.0
    """0 takes the best; above, sample: for that there is no beam"""
    top_k: int = 0
    """Sample among the likeliest so many; 0 is all"""
    top_p: float = 1.0
    """Sample among the likeliest that together have this probability"""
    seeds: Sequence[int] = ()
    """Of the sampling, one a sentence"""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One sentence, as token ids."""

    tokens: list[int]
    """Without prefix and end"""
    log_probs: list[float]
    """Of each token, and of the end if it was reached"""
    score: float
    """Log-probability with the language tag's, divided by the number of tokens to the power `length_penalty`: what
    fairseq2 compares"""


@torch.inference_mode()
def decode(
    decoder: TextDecoder,
    concepts: Tensor,  # [B, C]
    prefixes: Tensor,  # [B, 2]: `</s> __lang__`
    eos: int,
    options: DecodingOptions,
    cancelled: Interrupted = lambda: False,
) -> list[Hypothesis]:
    """The best sentence of each concept.

    Raises:
        DecodingCancelled: `cancelled()` answered true between two steps.
    """
    assert options.max_tokens is not None  # the space knows its decoder's
    if options.beam > 1:
        return _beam(decoder, concepts, prefixes, eos, options, cancelled)
    return _one_by_one(decoder, concepts, prefixes, eos, options, cancelled)


def _start(decoder: TextDecoder, concepts: Tensor, prefixes: Tensor) -> tuple[DecoderState, Tensor, Tensor]:
    """The state after the prefix, what it says comes next [B, V], and the log-probability [B] of the prefix itself."""
    state = decoder.start(concepts)
    log_probs = _log_softmax(decoder.step(prefixes[:, 0], state))
    of_prefix = torch.zeros(len(concepts), device=concepts.device)
    for column in range(1, prefixes.shape[1]):
        of_prefix += log_probs.gather(1, prefixes[:, column, None])[:, 0]
        log_probs = _log_softmax(decoder.step(prefixes[:, column], state))
    return state, log_probs, of_prefix


def _log_softmax(logits: Tensor) -> Tensor:
    log_probs = logits.float().log_softmax(dim=1)
    log_probs[:, PAD] = float("-inf")
    return log_probs


def _score(of_prefix: float, log_probs: Sequence[float], options: DecodingOptions) -> float:
    return (of_prefix + sum(log_probs)) / (len(log_probs) + 1) ** options.length_penalty


def _one_by_one(
    decoder: TextDecoder, concepts: Tensor, prefixes: Tensor, eos: int, options: DecodingOptions, cancelled: Interrupted
) -> list[Hypothesis]:
    tokens_of: list[list[int]] = [[] for _ in range(len(concepts))]
    log_probs_of: list[list[float]] = [[] for _ in range(len(concepts))]
    rows = torch.arange(len(concepts))
    seeds = options.seeds if options.temperature > 0 else ()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    state, log_probs, of_prefix = _start(decoder, concepts, prefixes)
    most = options.max_tokens or 0
    for length in range(most + 1):
        if cancelled():
            raise DecodingCancelled
        if length == most:
            picked = torch.full_like(rows, eos).to(log_probs.device)  # whatever still goes on must end
        else:
            picked = _picked(log_probs, options, [generators[row] for row in rows.tolist()] if generators else [])
        likely = log_probs.gather(1, picked[:, None])[:, 0].tolist()
        for row, token, log_prob in zip(rows.tolist(), picked.tolist(), likely, strict=True):
            log_probs_of[row].append(log_prob)
            if token != eos:
                tokens_of[row].append(token)
        going = (picked != eos).nonzero()[:, 0]
        if len(going) < len(picked):
            rows, picked = rows[going.cpu()], picked[going]
            if not len(rows):
                break
            state = state.select(going)
        log_probs = _log_softmax(decoder.step(picked, state))
    return [
        Hypothesis(tokens, log_probs, _score(prefix, log_probs, options))
        for tokens, log_probs, prefix in zip(tokens_of, log_probs_of, of_prefix.tolist(), strict=True)
    ]


def _picked(log_probs: Tensor, options: DecodingOptions, generators: Sequence[torch.Generator]) -> Tensor:
    if options.temperature <= 0:
        return log_probs.argmax(dim=1)
    probabilities = _truncated((log_probs / options.temperature).softmax(dim=1), options).cpu()
    drawn = [torch.multinomial(p, 1, generator=own) for p, own in zip(probabilities, generators, strict=True)]
    return torch.cat(drawn).to(log_probs.device)


def _truncated(probabilities: Tensor, options: DecodingOptions) -> Tensor:
    """[B, V], 0 beyond the likeliest `top_k` and those that reach `top_p` [Holtzman et al. 2020, arXiv 1904.09751]."""
    if not options.top_k and options.top_p >= 1:
        return probabilities
    most = min(options.top_k or probabilities.shape[1], probabilities.shape[1])
    values, at = probabilities.topk(most, dim=1)
    before = values.cumsum(dim=1) - values
    values = values.masked_fill(before >= options.top_p, 0.0)
    return torch.zeros_like(probabilities).scatter_(1, at, values)


@dataclass(slots=True)
class _Beam:
    """One beam of one sentence."""

    tokens: list[int]
    log_probs: list[float]


def _beam(
    decoder: TextDecoder, concepts: Tensor, prefixes: Tensor, eos: int, options: DecodingOptions, cancelled: Interrupted
) -> list[Hypothesis]:
    """Beam search as fairseq and fairseq2 have it: a sentence leaves when `beam` of its hypotheses have ended.

    After `max_tokens` everything that still goes on must end.
    """
    beam, vocab, device = options.beam, decoder.config.vocab_size, concepts.device
    most = options.max_tokens or 0
    ended: list[list[Hypothesis]] = [[] for _ in range(len(concepts))]
    state, log_probs, of_prefix = _start(decoder, concepts, prefixes)
    sentences, prefix = list(range(len(concepts))), of_prefix.tolist()
    state = state.select(torch.arange(len(concepts), device=device).repeat_interleave(beam))
    log_probs = log_probs.repeat_interleave(beam, dim=0)
    scores = torch.full((len(concepts), beam), float("-inf"), device=device)
    scores[:, 0] = of_prefix  # all beams are equal at first: only one may branch
    beams: list[list[_Beam]] = [[_Beam([], []) for _ in range(beam)] for _ in sentences]
    for length in range(most + 1):
        if cancelled():
            raise DecodingCancelled
        if length == most:
            only_end = torch.full_like(log_probs, float("-inf"))
            only_end[:, eos] = log_probs[:, eos]
            log_probs = only_end
        totals = scores[..., None] + log_probs.view(-1, beam, vocab)
        top_scores, top = totals.flatten(1).topk(2 * beam, dim=1)
        likely = log_probs.view(-1, beam * vocab).gather(1, top).tolist()
        rows: list[int] = []
        going: list[tuple[int, list[float], list[_Beam]]] = []
        for row, sentence in enumerate(sentences):
            alive: list[tuple[float, int, _Beam]] = []
            for rank, (score, flat) in enumerate(zip(top_scores[row].tolist(), top[row].tolist(), strict=True)):
                source, token = divmod(flat, vocab)
                own = beams[row][source]
                log_probs_of = [*own.log_probs, likely[row][rank]]
                if token != eos and len(alive) < beam:
                    alive.append((score, row * beam + source, _Beam([*own.tokens, token], log_probs_of)))
                elif token == eos and rank < beam and len(ended[sentence]) < beam:
                    normalised = _score(prefix[sentence], log_probs_of, options)
                    ended[sentence].append(Hypothesis(own.tokens, log_probs_of, normalised))
            if len(ended[sentence]) < beam and length < most:
                rows += [source for _, source, _ in alive]
                going.append((sentence, [score for score, _, _ in alive], [kept for _, _, kept in alive]))
        if not going:
            break
        sentences = [sentence for sentence, _, _ in going]
        scores = torch.tensor([alive_scores for _, alive_scores, _ in going], device=device)
        beams = [alive_beams for _, _, alive_beams in going]
        state = state.select(torch.tensor(rows, device=device))
        fed = torch.tensor([kept.tokens[-1] for of in beams for kept in of], device=device)
        log_probs = _log_softmax(decoder.step(fed, state))
    return [max(hypotheses, key=lambda h: h.score) for hypotheses in ended]
