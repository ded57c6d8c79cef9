"""Features: waveforms in, log-mel filter banks out, exactly as SONAR's speech encoders were trained on.

Kaldi's fbank (80 bins, 25 ms window, 10 ms step, no dither) of samples scaled to 16 bits, then every bin of an
utterance brought to mean 0 and deviation 1. Plain torch. Knows nothing of encoders or devices.

Shapes: T samples, F frames of 10 ms.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16_000
MEL_BINS = 80
WINDOW, STEP, FFT = 400, 160, 512
MIN_SAMPLES = WINDOW + STEP
"""Two frames: a deviation needs them; shorter waveforms are filled up with zeros"""
_SCALE = 2.0**15
_PRE_EMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = 1.1920928955078125e-07  # Kaldi's, the epsilon of float32
_MIN_DEVIATION = 1e-5


def fbank(waveforms: Tensor) -> Tensor:
    """Normalised features of waveforms [..., T] in −1 … 1 → [..., F, 80] float32."""
    features = log_mel(F.pad(waveforms, (0, max(0, MIN_SAMPLES - waveforms.shape[-1]))))
    deviation, mean = torch.std_mean(features, dim=-2, keepdim=True)
    return (features - mean) / deviation.clamp_min(_MIN_DEVIATION)  # a bin of digital silence stays 0


def log_mel(waveforms: Tensor) -> Tensor:
    """Kaldi's fbank of [..., T], not normalised → [..., F, 80]; what does not fill a window at the end is left out."""
    frames = waveforms.float().unfold(-1, WINDOW, STEP) * _SCALE
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    spectrum = torch.fft.rfft((frames - _PRE_EMPHASIS * before) * _window(frames.device), n=FFT)
    power = torch.view_as_real(spectrum).square().sum(dim=-1)[..., :-1]  # Kaldi leaves out the Nyquist bin
    return (power @ _mel_weights(frames.device)).clamp_min(_FLOOR).log()


@functools.cache
def _window(device: torch.device) -> Tensor:
    """Kaldi's «povey» window: Hann to the power 0.85."""
    return torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).pow(0.85).float().to(device)


@functools.cache
def _mel_weights(device: torch.device) -> Tensor:
    """Triangles on Kaldi's mel scale, [256, 80]."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = mel(torch.arange(FFT // 2, dtype=torch.float64) * SAMPLE_RATE / FFT)[:, None]
    low, high = mel(torch.tensor([_LOWEST_HZ, SAMPLE_RATE / 2], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, MEL_BINS + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0.0).float().to(device)
