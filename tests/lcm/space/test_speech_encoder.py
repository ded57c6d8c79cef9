"""The speech encoder: alone as in a batch, and each shortcut equal to what it stands for."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.space.conformer import GatedConvolution, RelativeBias
from lcm.space.speech_encoder import (
    BLANK,
    SpeechEncoder,
    SpeechEncoderConfig,
    mean_over_runs,
    speech_encoder_from_part,
)

TINY = SpeechEncoderConfig(
    dim=32,
    layers=2,
    heads=2,
    ffn_dim=48,
    kernel=5,
    reach=8,
    phones=9,
    reader_layers=2,
    reader_ffn_dim=48,
    concept_dim=24,
)


def encoder(config: SpeechEncoderConfig = TINY) -> SpeechEncoder:
    """Random weights, those too that begin as zeros."""
    torch.manual_seed(0)
    made = SpeechEncoder(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1 or parameter.shape[-1] == 2 * config.reach + 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        made.detail.weight.normal_(std=0.2)
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
    frames = model.frames(features, counts)
    assert frames.lengths.tolist() == [15, 9]
    assert frames.hidden.shape == (2, 15, TINY.dim)
    assert frames.phones.shape == (2, 15, TINY.phones)
    shorter = model(features[:, :40], torch.tensor([40, 33]))  # less padding, and another neighbour
    torch.testing.assert_close(model(features, counts)[1], shorter[1], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_concepts_have_the_fixed_norm_of_the_text_encoders() -> None:
    concepts = encoder()(*batch([70, 41]))
    torch.testing.assert_close(concepts.mean(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(concepts.var(dim=1, correction=0), torch.ones(2), atol=1e-3, rtol=0)


def test_runs_of_one_phone_become_one_token_and_blanks_none() -> None:
    path = torch.tensor([[BLANK, 3, 3, BLANK, 3, 5, 5, 5], [4, 4, 4, BLANK, BLANK, 7, 7, 7]])
    x = torch.arange(16.0).view(2, 8, 1)
    means, counts = mean_over_runs(x, path, torch.tensor([8, 5]))  # what stands past the end is not heard
    assert counts.tolist() == [3, 1]
    assert means[0, :, 0].tolist() == [1.5, 4.0, 6.0]
    assert means[1, 0, 0] == 9.0


def test_an_utterance_of_nothing_but_blanks_is_one_token_of_all_its_frames() -> None:
    x = torch.arange(12.0).view(2, 6, 1)
    means, counts = mean_over_runs(x, torch.full((2, 6), BLANK), torch.tensor([4, 6]))
    assert counts.tolist() == [1, 1]
    assert means[:, 0, 0].tolist() == [1.5, 8.5]


def test_phones_and_detail_learn_from_the_concept() -> None:
    model: torch.nn.Module = encoder()
    model(*batch([70, 41])).square()[:, 0].sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in ("phone_head.weight", "detail.weight", "layers.0.ffn1.inner_proj.weight"):
        gradient = gradients[name]
        assert gradient is not None
        assert gradient.abs().max() > 0


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
