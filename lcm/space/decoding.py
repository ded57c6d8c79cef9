"""Decoding: concepts and a step function in, token ids out. Greedy, sampling and beam, all batched over a KV cache.

Knows nothing of text. Finished sentences leave the batch, so a long one does not make the short ones wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcm.space.text_decoder import DecoderState, TextDecoder

Interrupted = Callable[[], bool]


class DecodingCancelled(Exception):
    """The caller no longer wants the result; raised between two steps."""


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How to search."""

    beam: int = 1
    """1 is greedy"""
    max_tokens: int = 96
    """tokens after the prefix"""
    length_penalty: float = 1.0
    """a hypothesis scores log p / length ** this"""
    temperature: float = 0.0
    """0 takes the best; above, sample: for that there is no beam"""
    seeds: Sequence[int] = ()
    """of the sampling, one a sentence"""


@torch.inference_mode()
def decode(
    decoder: TextDecoder,
    concepts: Tensor,  # [B, C]
    prefixes: Tensor,  # [B, 2]: `</s> __lang__`
    eos: int,
    options: DecodingOptions,
    cancelled: Interrupted = lambda: False,
) -> list[list[int]]:
    """Token ids of each sentence, without prefix and end.

    Raises:
        DecodingCancelled: `cancelled()` answered true between two steps.
    """
    if options.beam > 1:
        return _beam(decoder, concepts, prefixes, eos, options, cancelled)
    return _one_by_one(decoder, concepts, prefixes, eos, options, cancelled)


def _start(decoder: TextDecoder, concepts: Tensor, prefixes: Tensor, max_tokens: int) -> tuple[DecoderState, Tensor]:
    state = decoder.start(concepts, prefixes.shape[1] + max_tokens)
    logits = decoder.step(prefixes[:, 0], state)
    for column in range(1, prefixes.shape[1]):
        logits = decoder.step(prefixes[:, column], state)
    return state, logits


def _one_by_one(
    decoder: TextDecoder, concepts: Tensor, prefixes: Tensor, eos: int, options: DecodingOptions, cancelled: Interrupted
) -> list[list[int]]:
    done: list[list[int]] = [[] for _ in range(len(concepts))]
    rows = torch.arange(len(concepts))
    seeds = options.seeds if options.temperature > 0 else ()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    state, logits = _start(decoder, concepts, prefixes, options.max_tokens)
    for _ in range(options.max_tokens):
        if cancelled():
            raise DecodingCancelled
        tokens = _picked(logits, options.temperature, [generators[row] for row in rows.tolist()] if generators else [])
        going = (tokens != eos).nonzero()[:, 0]
        if len(going) < len(tokens):
            rows, tokens = rows[going.cpu()], tokens[going]
            if not len(rows):
                break
            state = state.select(going)
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            done[row].append(token)
        logits = decoder.step(tokens, state)
    return done


def _picked(logits: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    if temperature <= 0:
        return logits.argmax(dim=1)
    probabilities = (logits.float() / temperature).softmax(dim=1).cpu()
    drawn = [torch.multinomial(p, 1, generator=own) for p, own in zip(probabilities, generators, strict=True)]
    return torch.cat(drawn).to(logits.device)


def _beam(
    decoder: TextDecoder, concepts: Tensor, prefixes: Tensor, eos: int, options: DecodingOptions, cancelled: Interrupted
) -> list[list[int]]:
    """Beam search; a sentence leaves when `beam` hypotheses have ended, as in fairseq and fairseq2."""
    beam, vocab = options.beam, decoder.config.vocab_size
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(len(concepts))]
    sentences = list(range(len(concepts)))
    state, logits = _start(decoder, concepts, prefixes, options.max_tokens)
    state = state.select(torch.arange(len(concepts), device=concepts.device).repeat_interleave(beam))
    log_p = logits.float().log_softmax(dim=1).repeat_interleave(beam, dim=0)
    scores = torch.full((len(concepts), beam), float("-inf"), device=concepts.device)
    scores[:, 0] = 0.0  # all beams are equal at first: only one may branch
    tokens: list[list[list[int]]] = [[[] for _ in range(beam)] for _ in sentences]
    for length in range(1, options.max_tokens + 1):
        if cancelled():
            raise DecodingCancelled
        top_scores, top = (scores[..., None] + log_p.view(-1, beam, vocab)).flatten(1).topk(2 * beam, dim=1)
        rows: list[int] = []
        going: list[tuple[int, list[float], list[list[int]]]] = []
        for row, sentence in enumerate(sentences):
            alive: list[tuple[float, int, list[int]]] = []
            for rank, (score, flat) in enumerate(zip(top_scores[row].tolist(), top[row].tolist(), strict=True)):
                source, new = divmod(flat, vocab)
                if new == eos:
                    if rank < beam:
                        ended[sentence].append((score / length**options.length_penalty, tokens[row][source]))
                elif len(alive) < beam:
                    alive.append((score, row * beam + source, [*tokens[row][source], new]))
            if length == options.max_tokens and not ended[sentence]:
                ended[sentence].append((alive[0][0], alive[0][2]))
            if len(ended[sentence]) < beam:
                rows += [source for _, source, _ in alive]
                going.append((sentence, [score for score, _, _ in alive], [ids for _, _, ids in alive]))
        if not going or length == options.max_tokens:
            break
        sentences = [sentence for sentence, _, _ in going]
        scores = torch.tensor([alive_scores for _, alive_scores, _ in going], device=concepts.device)
        tokens = [alive_tokens for _, _, alive_tokens in going]
        state = state.select(torch.tensor(rows, device=concepts.device))
        fed = torch.tensor([ids[-1] for alive_tokens in tokens for ids in alive_tokens], device=concepts.device)
        log_p = decoder.step(fed, state).float().log_softmax(dim=1)
    return [max(hypotheses)[1] for hypotheses in ended]
