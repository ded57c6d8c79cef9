"""Features agree with Kaldi's, and hold at the edges."""

import numpy as np
import pytest
import torch

from lcm.space.fbank import MIN_SAMPLES, fbank, log_mel


def kaldi(waveform: torch.Tensor) -> np.ndarray:
    """What kaldi-native-fbank makes of it."""
    native = pytest.importorskip("kaldi_native_fbank")
    options = native.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80
    computer = native.OnlineFbank(options)
    computer.accept_waveform(16_000, (waveform * 2**15).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.mark.parametrize("samples", [400, 16_000, 20_001])
def test_log_mel_is_kaldis(samples: int) -> None:
    generator = torch.Generator().manual_seed(samples)
    tone = 0.3 * torch.sin(torch.arange(samples) * 0.2)
    waveform = tone + 0.01 * torch.randn(samples, generator=generator) + 0.02  # a constant offset must not matter
    np.testing.assert_allclose(log_mel(waveform).numpy(), kaldi(waveform), atol=1e-3)


def test_every_bin_has_mean_0_and_deviation_1() -> None:
    features = fbank(torch.randn(16_000, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (98, 80)
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(80), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(dim=0), torch.ones(80), atol=1e-4, rtol=0)


def test_the_level_of_the_recording_does_not_matter() -> None:
    waveform = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fbank(waveform), fbank(waveform * 5), atol=1e-3, rtol=0)


def test_waveforms_of_one_length_may_be_stacked() -> None:
    waveforms = torch.randn(3, 5_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fbank(waveforms), torch.stack([fbank(w) for w in waveforms]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, MIN_SAMPLES])
def test_silence_and_almost_nothing_stay_finite(samples: int) -> None:
    features = fbank(torch.zeros(samples))
    assert features.shape == (2, 80)
    assert not features.any()
