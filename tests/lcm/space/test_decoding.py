"""Decoding through the KV cache agrees with the plain decoder, in any batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lcm.space.decoding import DecodingCancelled, DecodingOptions, Hypothesis, decode
from lcm.space.layers import DecoderLayer
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig

EOS = 3
CONFIG = TextDecoderConfig(vocab_size=12, dim=32, layers=2, heads=4, ffn_dim=48, max_tokens=40, concept_dim=24)


@pytest.fixture
def decoder() -> TextDecoder:
    torch.manual_seed(2)
    model = TextDecoder(CONFIG).eval()
    for name, parameter in model.named_parameters():  # a freshly initialised tied decoder would only repeat its input
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.25 if "embed" in name else 0.35)
    torch.nn.init.normal_(model.embed.weight, std=0.25)
    torch.nn.init.normal_(model.layer_norm.weight)
    return model


@pytest.fixture
def concepts() -> Tensor:
    return torch.randn(24, 24, generator=torch.Generator().manual_seed(1))


def prefixes(count: int) -> Tensor:
    return torch.tensor([[EOS, 7]]).repeat(count, 1)


@torch.inference_mode()
def greedy_without_cache(decoder: TextDecoder, concept: Tensor, max_tokens: int) -> list[int]:
    ids = [EOS, 7]
    while len(ids) < max_tokens + 2:
        logits = decoder.logits(decoder.hidden(concept[None], torch.tensor([ids])))[0, -1]
        best = int(logits[1:].argmax()) + 1  # never padding
        if best == EOS:
            break
        ids.append(best)
    return ids[2:]


def tokens(hypotheses: list[Hypothesis]) -> list[list[int]]:
    return [hypothesis.tokens for hypothesis in hypotheses]


@torch.inference_mode()
def log_probabilities(decoder: TextDecoder, concept: Tensor, ids: list[int]) -> Tensor:
    """Of the language tag, each token and the end."""
    tokens = torch.tensor([[EOS, 7, *ids, EOS]])
    log_p = decoder.logits(decoder.hidden(concept[None], tokens[:, :-1])).log_softmax(-1)
    return log_p[0].gather(1, tokens[0, 1:, None])[:, 0]


def test_greedy_with_the_cache_equals_greedy_without(decoder: TextDecoder, concepts: Tensor) -> None:
    options = DecodingOptions(max_tokens=20)
    cached = tokens(decode(decoder, concepts, prefixes(24), EOS, options))
    assert cached == [greedy_without_cache(decoder, c, 20) for c in concepts]
    assert len({len(ids) for ids in cached}) > 1, "the sentences should end at different steps"


@pytest.mark.parametrize("beam", [1, 4])
def test_a_batch_decodes_as_each_sentence_alone(decoder: TextDecoder, concepts: Tensor, beam: int) -> None:
    options = DecodingOptions(beam=beam, max_tokens=20)
    together = decode(decoder, concepts, prefixes(24), EOS, options)
    alone = [decode(decoder, c[None], prefixes(1), EOS, options)[0] for c in concepts]
    assert tokens(together) == tokens(alone)
    assert [h.score for h in together] == pytest.approx([h.score for h in alone], abs=1e-5)


@pytest.mark.parametrize("options", [DecodingOptions(max_tokens=20), DecodingOptions(beam=4, max_tokens=20)])
def test_a_score_is_the_mean_log_probability(decoder: TextDecoder, concepts: Tensor, options: DecodingOptions) -> None:
    for concept, found in zip(concepts, decode(decoder, concepts, prefixes(24), EOS, options), strict=True):
        expected = log_probabilities(decoder, concept, found.tokens)
        assert found.score == pytest.approx(float(expected.mean()), abs=1e-5)
        assert found.log_probs == pytest.approx(expected[1:].tolist(), abs=1e-4)


def test_a_beam_finds_sentences_at_least_as_likely_as_greedy(decoder: TextDecoder, concepts: Tensor) -> None:
    greedy = decode(decoder, concepts, prefixes(24), EOS, DecodingOptions(max_tokens=20))
    beam = decode(decoder, concepts, prefixes(24), EOS, DecodingOptions(beam=3, max_tokens=20))
    gains = [found.score - other.score for found, other in zip(beam, greedy, strict=True)]
    assert sum(g > 1e-4 for g in gains) > len(gains) / 4
    assert sum(g < -1e-4 for g in gains) < len(gains) / 10, "a beam may prune the greedy path, but rarely"


def test_sampling_depends_on_the_sentences_own_seed_alone(decoder: TextDecoder, concepts: Tensor) -> None:
    def sample(first: int, rows: slice = slice(None)) -> list[list[int]]:
        options = DecodingOptions(temperature=1.0, max_tokens=20, seeds=range(first, first + 24)[rows])
        return tokens(decode(decoder, concepts[rows], prefixes(24)[rows], EOS, options))

    together = sample(1)
    assert together == sample(1)
    assert together != sample(2)
    assert together[5:6] == sample(1, slice(5, 6))


def test_sampling_keeps_to_the_likeliest(decoder: TextDecoder, concepts: Tensor) -> None:
    def drawn(**truncation: Any) -> list[Hypothesis]:
        options = DecodingOptions(temperature=1.5, max_tokens=20, seeds=range(24), **truncation)
        return decode(decoder, concepts, prefixes(24), EOS, options)

    greedy = tokens(decode(decoder, concepts, prefixes(24), EOS, DecodingOptions(max_tokens=20)))
    assert tokens(drawn(top_k=1)) == tokens(drawn(top_p=1e-6)) == greedy
    assert tokens(drawn(top_k=12)) == tokens(drawn())  # the whole vocabulary
    for found, concept in zip(drawn(top_k=3), concepts, strict=True):
        said = torch.tensor([[EOS, 7, *found.tokens]])
        with torch.inference_mode():
            likeliest = decoder.logits(decoder.hidden(concept[None], said))[0, 1:-1, 1:].topk(3).indices + 1
        assert all(token in best for token, best in zip(found.tokens, likeliest.tolist(), strict=True))


def test_decoding_stops_between_steps_when_cancelled(decoder: TextDecoder, concepts: Tensor) -> None:
    answers = iter([False, False, True])
    with pytest.raises(DecodingCancelled):
        decode(decoder, concepts, prefixes(24), EOS, DecodingOptions(max_tokens=20), cancelled=lambda: next(answers))


def test_attention_to_one_key_is_its_value(decoder: TextDecoder, concepts: Tensor) -> None:
    """Multi-head cross-attention over a single key gives the constant that `ConceptAttention` computes."""
    layer = decoder.layers[0]
    assert isinstance(layer, DecoderLayer)
    constant = layer.encoder_decoder_attn
    full = torch.nn.MultiheadAttention(32, 4, kdim=24, vdim=24, batch_first=True)
    with torch.no_grad():
        full.v_proj_weight.copy_(constant.v_proj.weight)
        full.in_proj_bias[64:].copy_(constant.v_proj.bias)
        full.out_proj.weight.copy_(constant.output_proj.weight)
        full.out_proj.bias.copy_(constant.output_proj.bias)
    queries = torch.randn(24, 5, 32)
    attended, _ = full(queries, concepts[:, None], concepts[:, None])
    torch.testing.assert_close(attended, constant(concepts).expand_as(attended), atol=1e-5, rtol=1e-5)
