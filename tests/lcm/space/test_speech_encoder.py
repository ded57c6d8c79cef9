"""The speech encoder: alone as in a batch, and each shortcut equal to what it stands for."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.space.conformer import GatedConvolution, RelativeBias
from lcm.space.speech_encoder import (
    QueryAttention,
    SpeechEncoder,
    SpeechEncoderConfig,
    speech_encoder_from_part,
)

TINY = SpeechEncoderConfig(
    dim=32,
    layers=2,
    heads=2,
    ffn_dim=48,
    kernel=5,
    reach=8,
    pooler_layers=2,
    pooler_heads=4,
    pooler_ffn_dim=32,
    concept_dim=24,
)


def encoder(config: SpeechEncoderConfig = TINY) -> SpeechEncoder:
    """Random weights, the biases and distances too."""
    torch.manual_seed(0)
    made = SpeechEncoder(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1 or parameter.shape[-1] == 2 * config.reach + 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Random features of these lengths, padded with zeros."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(n, 80, generator=generator) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


@pytest.mark.parametrize("lengths", [[2, 3, 4, 5, 6, 7, 8, 9], [403, 351, 110, 2], [50, 50]])
@torch.inference_mode()
def test_an_utterance_in_a_batch_is_the_same_as_alone(lengths: list[int]) -> None:
    model = encoder()
    features, counts = batch(lengths)
    together = model(features, counts)
    assert together.shape == (len(lengths), TINY.concept_dim)
    for row, length in enumerate(lengths):
        alone = model(features[row : row + 1, :length], counts[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_what_stands_past_the_end_does_not_matter() -> None:
    model = encoder()
    features, counts = batch([60, 33])
    other = features.clone()
    frames = model.frames(features, counts)
    assert frames.lengths.tolist() == [15, 9]
    assert frames.layers[0].shape == (2, 15, TINY.dim)
    torch.testing.assert_close(
        model(features, counts)[1], model(other[:, :40], torch.tensor([40, 33]))[1], atol=1e-4, rtol=0
    )


@torch.inference_mode()
def test_concepts_have_the_fixed_norm_of_the_text_encoders() -> None:
    concepts = encoder()(*batch([70, 41]))
    torch.testing.assert_close(concepts.mean(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(concepts.var(dim=1, correction=0), torch.ones(2), atol=1e-3, rtol=0)


@torch.inference_mode()
def test_attention_of_one_query_is_multi_head_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = QueryAttention(32, 4), torch.nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([ours.q_proj.weight, ours.k_proj.weight, ours.v_proj.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.q_proj.bias, torch.randn(32), ours.v_proj.bias]))  # any bias of keys
    theirs.out_proj.load_state_dict(ours.output_proj.state_dict())
    query, frames = torch.randn(3, 32), torch.randn(3, 7, 32)
    padding = torch.arange(7) >= torch.tensor([7, 5, 1])[:, None]
    hidden = torch.zeros(3, 1, 7).masked_fill(padding[:, None], float("-inf"))
    expected, _ = theirs(query[:, None], frames, frames, key_padding_mask=padding)
    torch.testing.assert_close(ours(query, frames, hidden), expected[:, 0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_convolution_over_images_is_the_layers_own() -> None:
    torch.manual_seed(0)
    module, x = GatedConvolution(16, 5), torch.randn(2, 9, 16)
    gated = F.glu(module.pointwise_conv1(x), dim=-1)
    plain = module.depthwise_conv(gated.mT).mT
    expected = module.pointwise_conv2(F.silu(module.layer_norm(plain)))
    torch.testing.assert_close(module(x, None), expected, atol=1e-5, rtol=0)


def test_the_bias_depends_on_the_distance_alone() -> None:
    bias = RelativeBias(2, 3)
    with torch.no_grad():
        bias.weight.copy_(torch.arange(14.0).view(2, 7))
    made = bias(6)[0, 0]
    assert made[2, 2] == made[4, 4] == 3  # distance 0
    assert made[0, 1] == 4
    assert made[1, 0] == 2
    assert made[0, 5] == made[0, 3] == 6  # beyond the reach


@torch.inference_mode()
def test_a_part_of_a_bundle_gives_the_encoder_back() -> None:
    model = encoder()
    again = speech_encoder_from_part(asdict(TINY), model.state_dict())
    features = batch([30, 20])
    assert torch.equal(again(*features), model(*features))


def test_the_mini_encoder_fits_its_share_of_the_bundle() -> None:
    parameters = sum(p.numel() for p in SpeechEncoder(SpeechEncoderConfig()).parameters())
    assert 2 * parameters < 18e6  # bytes in fp16
