"""Backend: the models of a space, loaded on one device; token ids and features in, concepts and token ids out.

`TorchBackend` is this package's own modules, filled tensor by tensor, so that each needs little more than its size.
`sonar_space.py` is Meta's package behind the same protocol. Knows nothing of text, waveforms or validation.
"""

import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lcm.bundle import Bundle, Part, fitting
from lcm.errors import BackendError, LanguageError
from lcm.space.checkpoint import Kind, checkpoint_tensors
from lcm.space.decoding import DecodingOptions, Hypothesis, Interrupted, decode
from lcm.space.languages import base_language
from lcm.space.memory import return_memory, shapes_only
from lcm.space.packed import can_pack, pack
from lcm.space.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from lcm.space.spoken_language import PART as SPOKEN_LANGUAGE
from lcm.space.spoken_language import SpokenLanguage, spoken_language_from_part
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from lcm.space.w2v_bert import W2vBertConfig, W2vBertEncoder

Precision = Literal["float32", "bfloat16", "float16", "int8"]
"""`int8`: linear maps with weights of 8 bits, a scale a row; everything else bfloat16"""
BackendName = Literal["noema", "sonar-space"]
Settle = Callable[[nn.Module, str], None]
M = TypeVar("M", bound=nn.Module)
_NAME_IT = (
    "name the one that is spoken, or train a head: "
    "python -m scripts.train configs/training/spoken_language_mini.yaml --bundle FOLDER"
)


class Backend(Protocol):
    """What a space needs of its models."""

    def prepare(self, parts: Iterable[str]) -> None:
        """Load these parts now rather than when they are first needed."""
        ...

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """[B, T] int64, padded with `PAD` → [B, C] float32 on the CPU."""
        ...

    def encode_features(self, features: Tensor, lengths: Tensor, language: str) -> Tensor:
        """[B, F, 80], zero past each utterance's `lengths` [B] → [B, C] float32 on the CPU."""
        ...

    def identify_features(self, features: Tensor, lengths: Tensor, languages: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As `encode_features`, where one encoder hears all: also the log-odds of `languages`, [B, L] float32."""
        ...

    def decode(
        self, concepts: Tensor, prefixes: Tensor, eos: int, options: DecodingOptions, cancelled: Interrupted
    ) -> list[Hypothesis]:
        """[B, C] and target prefixes [B, 2] → the best sentence of each."""
        ...

    def logits(self, concepts: Tensor, tokens: Tensor) -> Tensor:
        """[B, C] and the tokens so far [B, T] → [B, T, V] float32 on the CPU: what each position says comes next."""
        ...


class TorchBackend:
    """This package's modules."""

    def __init__(self, bundle: Bundle, device: torch.device, precision: Precision) -> None:
        self._bundle, self._device = bundle, device
        self._dtype = torch.bfloat16 if precision == "int8" else getattr(torch, precision)
        self._settle = _settling(device, precision)
        self._speech: dict[str, nn.Module] = {}

    def prepare(self, parts: Iterable[str]) -> None:
        """Load these parts now; of a speech encoder for each language, those named like `speech_encoder_fra`."""
        for part in parts:
            self.module(part)

    def module(self, part: str) -> nn.Module:
        """What computes a part; loaded if it was not."""
        if part.startswith("speech_encoder"):
            return self._speech_encoder(part)
        module: nn.Module = getattr(self, f"_{part}")
        return module

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """[B, T] int64, padded with `PAD` → [B, C] float32 on the CPU."""
        return self._text_encoder(tokens.to(self._device)).cpu()

    @torch.inference_mode()
    def encode_features(self, features: Tensor, lengths: Tensor, language: str) -> Tensor:
        """[B, F, 80], zero past each utterance's `lengths` [B] → [B, C] float32 on the CPU."""
        encoder = self._speech_encoder(speech_part(self._bundle, language))
        return encoder(features.to(self._device), lengths.to(self._device)).float().cpu()

    @torch.inference_mode()
    def identify_features(self, features: Tensor, lengths: Tensor, languages: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As `encode_features`, where one encoder hears all: also the log-odds of `languages`, [B, L] float32.

        Raises:
            LanguageError: the bundle has no head that tells them apart.
            BundleError: the head belongs to another speech encoder.
        """
        head, encoder = self._spoken_language, self._speech_encoder("speech_encoder")
        if unknown := [tag for tag in languages if tag not in head.config.languages]:
            raise LanguageError(
                f"{SPOKEN_LANGUAGE!r} of {self._bundle.name!r} has not learnt {unknown[0]!r}; {_NAME_IT}"
            )
        assert isinstance(encoder, SpeechEncoder)  # the head has learnt its frames
        frames = encoder.frames(features.to(self._device), lengths.to(self._device))
        columns = [head.config.languages.index(tag) for tag in languages]
        return encoder.read(frames).float().cpu(), head(frames)[:, columns].cpu()

    @torch.inference_mode()
    def decode(
        self, concepts: Tensor, prefixes: Tensor, eos: int, options: DecodingOptions, cancelled: Interrupted
    ) -> list[Hypothesis]:
        """[B, C] and target prefixes [B, 2] → the best sentence of each."""
        return decode(self._text_decoder, concepts.to(self._device), prefixes.to(self._device), eos, options, cancelled)

    @torch.inference_mode()
    def logits(self, concepts: Tensor, tokens: Tensor) -> Tensor:
        """[B, C] and the tokens so far [B, T] → [B, T, V] float32 on the CPU: what each position says comes next."""
        decoder = self._text_decoder
        hidden = decoder.hidden(concepts.to(self._device, decoder.embed.weight.dtype), tokens.to(self._device))
        return decoder.logits(hidden).float().cpu()

    @functools.cached_property
    def _text_encoder(self) -> TextEncoder:
        part = self._bundle.part("text_encoder")
        return self._loaded(part, "text_encoder", lambda: TextEncoder(TextEncoderConfig(**part.config)))

    @functools.cached_property
    def _text_decoder(self) -> TextDecoder:
        part = self._bundle.part("text_decoder")
        shared = {} if part.checkpoint else {"embed.weight": self._text_encoder.embed.weight.detach()}
        return self._loaded(part, "text_decoder", lambda: TextDecoder(TextDecoderConfig(**part.config)), shared)

    @functools.cached_property
    def _spoken_language(self) -> SpokenLanguage:
        if SPOKEN_LANGUAGE not in self._bundle.parts:
            raise LanguageError(f"bundle {self._bundle.name!r} cannot tell spoken languages apart; {_NAME_IT}")
        part, encoder = (self._bundle.part(name) for name in (SPOKEN_LANGUAGE, "speech_encoder"))
        return spoken_language_from_part(part, encoder).to(self._device)

    def _speech_encoder(self, name: str) -> nn.Module:
        if name not in self._speech:
            part = self._bundle.part(name)
            self._speech[name] = self._loaded(part, "speech_encoder", lambda: speech_module(part))
        return self._speech[name]

    def _loaded(self, part: Part, kind: Kind, build: Callable[[], M], shared: dict[str, Tensor] | None = None) -> M:
        with fitting(part):
            with shapes_only():
                module = build()
            given = checkpoint_tensors(part.checkpoint, kind) if part.checkpoint else part.each_tensor()
            fill(module, given, self._device, self._dtype, self._settle)
            fill(module, (shared or {}).items(), self._device, self._dtype, self._settle)
            if missing := [name for name, tensor in module.state_dict().items() if tensor.is_meta]:
                raise ValueError(f"{missing[0]!r} is missing, and {len(missing) - 1} more")
        return_memory()
        return module.to(self._device).eval()  # positions are not stored


def _settling(device: torch.device, precision: Precision) -> Settle | None:
    """What is done to a linear map once its weight is there: one at a time, so that no model is ever held twice."""
    if precision == "int8":
        return _int8_weights()
    return pack if device.type == "cpu" and precision == "float32" and can_pack() else None


def _int8_weights() -> Settle:
    """Rounds a linear map's weight, in place.

    Raises:
        BackendError: torchao is not installed.
    """
    try:
        with quiet("torchao", "torch.utils._pytree"):  # they warn of GPU kernels and of each other
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        install = f"{sys.executable} -m pip install torchao"
        raise BackendError(f"int8 needs torchao ({error}): {install}, or take bfloat16") from error

    def round_weight(module: nn.Module, name: str) -> None:
        if isinstance(child := module.get_submodule(name), nn.Linear):
            quantize_(child, Int8WeightOnlyConfig())
            return_memory()

    return round_weight


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Loggers that say nothing but errors for a while."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def speech_module(part: Part) -> SpeechEncoder | W2vBertEncoder:
    """The speech encoder that a part's settings describe, not yet filled."""
    return (
        W2vBertEncoder(W2vBertConfig(**part.config))
        if part.checkpoint
        else SpeechEncoder(SpeechEncoderConfig(**part.config))
    )


def speech_part(bundle: Bundle, language: str) -> str:
    """The part that hears a language: `speech_encoder` if one hears all, else one such as `speech_encoder_fra`."""
    one_each = f"speech_encoder_{base_language(language)}"
    return one_each if one_each in bundle.parts else "speech_encoder"


def fill(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    device: torch.device,
    dtype: torch.dtype,
    settle: Settle | None = None,
) -> None:
    """Gives the module's parameters and buffers their values; what needs neither copy nor move stays where it is.

    Args:
        module: may be on the meta device.
        tensors: under the module's names, one at a time.
        device: where they go.
        dtype: of those that float.
        settle: called with the module and the name of a submodule whose `weight` has come.

    Raises:
        ValueError: the first tensor that has no place, or another size.
    """
    places = module.state_dict(keep_vars=True)
    for name, tensor in tensors:
        place = places.pop(name, None)
        if place is None:
            raise ValueError(f"there is no place for {name!r}, or it comes twice")
        if place.shape != tensor.shape:
            raise ValueError(f"{name!r} is {list(tensor.shape)}, expected {list(place.shape)}")
        value = tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        owner, _, leaf = name.rpartition(".")
        kept: Any = nn.Parameter(value, requires_grad=False) if isinstance(place, nn.Parameter) else value
        setattr(module.get_submodule(owner), leaf, kept)
        if settle and leaf == "weight":
            settle(module, owner)
