"""Checks: what callers hand to a concept space in, what its models take out; or an error that says what to do."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lcm.errors import AudioInputError, ComputeDeviceError, ContextError, DecodingError, TextError
from lcm.space.decoding import DecodingOptions
from lcm.space.fbank import SAMPLE_RATE
from lcm.space.sentences import clean
from lcm.space.text_decoder import TextDecoderConfig

MIN_SECONDS, MAX_SECONDS = 0.1, 30.0
MAX_BEAM = 64
LEAST_TEMPERATURE = 0.01
_RATES = (1_000, 384_000)
_SEEDS = 2**63
_PREFIX_AND_END = 3


def chosen_device(device: str) -> torch.device:
    """`auto` → CUDA, else MPS, else CPU.

    Raises:
        ComputeDeviceError: torch knows no such device, or cannot use it here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        what = str(error).splitlines()[0]
        raise ComputeDeviceError(f"cannot compute on {device!r} ({what}); choose auto, cpu, cuda or mps") from error
    return torch.device(device)


def one_of(name: str, known: Collection[str], what: str, error: type[Exception]) -> None:
    """Raises `error` where `name` is none of those known."""
    if name not in known:
        raise error(f"there is no {what} {name!r}; choose of {', '.join(known)}")


def written_text(text: str) -> str:
    """A text without control characters and superfluous space.

    Raises:
        TextError: nothing is left.
    """
    cleaned = " ".join(clean(text).split())
    if not cleaned:
        raise TextError("the text is empty; give at least one word")
    return cleaned


def finite_concepts(concepts: Any, dim: int) -> Tensor:
    """[B, C] float32, from a tensor or array.

    Raises:
        ContextError: another shape, or not finite.
    """
    given = torch.as_tensor(concepts).detach()
    if given.ndim != 2 or given.shape[1] != dim or not bool(given.isfinite().all()):
        raise ContextError(f"give finite concepts, [B, {dim}], not {tuple(given.shape)}")
    return given.float()


def utterances(waveforms: Sequence[Any], sample_rate: int) -> list[Tensor]:
    """Each as one channel of 16 kHz that one concept can hold, float32 [T].

    Raises:
        AudioInputError: empty, too short or long, not finite, not one channel, or one instead of several.
    """
    if isinstance(waveforms, str) or getattr(waveforms, "ndim", 2) == 1:
        raise AudioInputError("give a list of waveforms, not one: [waveform]")
    found = []
    for waveform in waveforms:
        samples = samples_of(waveform, sample_rate)
        if len(samples) > MAX_SECONDS * SAMPLE_RATE:
            raise AudioInputError(
                f"a waveform lasts {len(samples) / SAMPLE_RATE:.1f} s, a concept takes {MAX_SECONDS:.0f} s at most: "
                "cut it at pauses, as encode_recording does"
            )
        found.append(samples)
    return found


def samples_of(waveform: Any, sample_rate: int) -> Tensor:
    """One channel of 16 kHz, float32 [T], of any length.

    Raises:
        AudioInputError: as `utterances`, but for what is too long.
    """
    if not _RATES[0] <= sample_rate <= _RATES[1]:
        raise AudioInputError(f"a sample rate of {sample_rate} Hz; it lies between {_RATES[0]} and {_RATES[1]}")
    try:
        samples = torch.as_tensor(waveform, dtype=torch.float32).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        advice = "give samples, float32 [T]; a file is read by audio.files.read_audio"
        raise AudioInputError(f"a waveform is a {type(waveform).__name__}; {advice}") from error
    if samples.ndim != 1:
        raise AudioInputError(f"a waveform has shape {tuple(samples.shape)}; give one channel, [T]")
    if len(samples) < MIN_SECONDS * sample_rate:
        raise AudioInputError(f"a waveform lasts {len(samples) / sample_rate:.2f} s; a concept needs {MIN_SECONDS} s")
    if not bool(samples.isfinite().all()):
        raise AudioInputError("a waveform holds samples that are not finite; read the file again")
    return samples if sample_rate == SAMPLE_RATE else _resampled(samples, sample_rate)


def _resampled(samples: Tensor, sample_rate: int) -> Tensor:
    import soxr

    return torch.from_numpy(soxr.resample(samples.numpy(), sample_rate, SAMPLE_RATE))


def complete_options(options: DecodingOptions, count: int, config: TextDecoderConfig) -> DecodingOptions:
    """The options for `count` concepts, filled up from the decoder's configuration.

    Raises:
        DecodingError: out of range, or they do not go together.
    """
    most = config.usual_tokens if options.max_tokens is None else options.max_tokens
    _check_search(options, most)
    _check_sampling(options, count)
    longest = config.max_tokens - _PREFIX_AND_END
    return replace(options, max_tokens=min(most, longest), seeds=options.seeds or range(count))


def _check_search(options: DecodingOptions, most: int) -> None:
    if not 1 <= options.beam <= MAX_BEAM or most < 1:
        raise DecodingError(f"a beam is 1 to {MAX_BEAM}, max_tokens at least 1")
    if not math.isfinite(options.length_penalty):
        raise DecodingError("a length penalty is a finite number; 1 scores by the mean of a token")


def _check_sampling(options: DecodingOptions, count: int) -> None:
    samples = options.temperature > 0
    if not (options.temperature == 0 or LEAST_TEMPERATURE <= options.temperature < float("inf")):
        raise DecodingError(f"a temperature is 0, which takes the best, or {LEAST_TEMPERATURE} and more")
    if options.top_k < 0 or not 0 < options.top_p <= 1:
        raise DecodingError("top_k begins at 1 (0 is all), top_p lies above 0 and is at most 1")
    if options.beam > 1 and samples:
        raise DecodingError("a beam search does not sample; leave out beam or temperature")
    if not samples and (options.top_k or options.top_p < 1):
        raise DecodingError("top_k and top_p belong to sampling; give a temperature above 0")
    if options.seeds and len(options.seeds) != count:
        raise DecodingError(f"{len(options.seeds)} seeds for {count} concepts; give one each")
    if any(not 0 <= seed < _SEEDS for seed in options.seeds):
        raise DecodingError("a seed is 0 or more, and below 2**63")
