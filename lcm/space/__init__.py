"""The concept space: sentences or waveforms in, concepts out, and back. Knows nothing of sessions, devices or sockets.

Shape letters here and below: B batch, T time (tokens, frames or samples), C concept, D model width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lcm.bundle import Bundle, fitting
from lcm.errors import AudioInputError, ComputeDeviceError, ContextError, DecodingError, LanguageError, TextError
from lcm.space.decoding import DecodingOptions, decode
from lcm.space.fbank import SAMPLE_RATE, fbank
from lcm.space.sentences import clean
from lcm.space.speech_encoder import SpeechEncoder, speech_encoder_from_part
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from lcm.space.tokenizer import PAD, Tokenizer, base_language

__all__ = ["ConceptSpace", "DecodingOptions"]

BATCH = 64
MIN_SECONDS, MAX_SECONDS = 0.1, 30.0
SPEECH_BATCH = 16
FRAMES_MULTIPLE = 16
"""Feature frames are padded to a multiple. oneDNN keeps compiled code for every length it meets, and no two utterances
are equally long: over 360 utterances memory grew by 59 MB unpadded, by 17 MB (and no further) padded"""


class ConceptSpace:
    """Encoders and decoder of one bundle, on one device. Use from one thread at a time."""

    def __init__(
        self,
        bundle: Bundle,
        tokenizer: Tokenizer,
        text_encoder: TextEncoder,
        text_decoder: TextDecoder | None,
        speech_encoder: SpeechEncoder | None,
        device: torch.device,
    ) -> None:
        self.bundle, self.tokenizer, self.device = bundle, tokenizer, device
        self.space_id, self.dim = bundle.space_id, text_encoder.config.concept_dim
        self._text_encoder, self._text_decoder, self._speech_encoder = text_encoder, text_decoder, speech_encoder

    @classmethod
    def load(cls, name: str | Path = "mini", device: str = "auto") -> "ConceptSpace":
        """Load a bundle by name (`mini`) or folder.

        Args:
            name: a bundle that ships with Noema, or a folder that holds one.
            device: `auto` (CUDA, else MPS, else CPU) or any torch device.

        Raises:
            BundleError: missing, damaged, its parts belong to different spaces, or do not fit this Noema.
            ComputeDeviceError: no such device here.
        """
        bundle, where = Bundle.open(name), chosen_device(device)
        decoder, speech = None, None
        part = bundle.part("text_encoder")
        with fitting(part):
            encoder = TextEncoder(TextEncoderConfig(**part.config))
            encoder.load_state_dict(part.tensors())
        if "text_decoder" in bundle.parts:
            part = bundle.part("text_decoder")
            with fitting(part):
                decoder = TextDecoder(TextDecoderConfig(**part.config), embed=encoder.embed)
                decoder.load_state_dict({**part.tensors(), "embed.weight": encoder.embed.weight.detach()})
            decoder.to(where).eval()
        if "speech_encoder" in bundle.parts:
            part = bundle.part("speech_encoder")
            with fitting(part):
                speech = speech_encoder_from_part(part.config, part.tensors())
            speech.to(where)
        tokenizer = Tokenizer.from_file(bundle.tokenizer_path(), bundle.languages["text"])
        return cls(bundle, tokenizer, encoder.to(where).eval(), decoder, speech, where)

    @property
    def languages(self) -> dict[str, list[str]]:
        """`{"text": […], "speech": […]}`: ISO 639-3 languages of each modality."""
        return {kind: list(tags) for kind, tags in self.bundle.languages.items()}

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], language: str | Sequence[str]) -> Tensor:
        """One concept a sentence.

        Args:
            texts: sentences; longer text belongs into `split_sentences` first, what exceeds the encoder is cut.
            language: one for all, or one each.

        Returns:
            [B, C] float32 on the CPU.

        Raises:
            TextError: a text is empty, nothing is left of it without control characters, or `texts` is one text.
            LanguageError: a language that the bundle does not hold.
        """
        if isinstance(texts, str):
            raise TextError("give a list of sentences, not one text: each letter would become a sentence")
        languages = self._languages(language, len(texts), "text")
        limit = self._text_encoder.config.max_tokens
        rows = [
            self.tokenizer.encode_source(_required(text), tag, max_tokens=limit)
            for text, tag in zip(texts, languages, strict=True)
        ]
        out = torch.empty(len(rows), self.dim)
        for batch in _length_sorted([len(row) for row in rows], BATCH):
            tokens = torch.full((len(batch), max(len(rows[i]) for i in batch)), PAD)
            for at, i in enumerate(batch):
                tokens[at, : len(rows[i])] = torch.tensor(rows[i])
            out[batch] = self._text_encoder(tokens.to(self.device)).cpu()
        return out

    @torch.inference_mode()
    def encode_speech(
        self, waveforms: Sequence[Tensor], sample_rate: int = SAMPLE_RATE, language: str | Sequence[str] = "eng"
    ) -> Tensor:
        """One concept a waveform.

        Args:
            waveforms: float32 [T] in −1 … 1 each (numpy arrays are taken too).
            sample_rate: of all of them; resampled to 16 kHz.
            language: what is spoken; the mini encoder hears all its languages with the same weights.

        Returns:
            [B, C] float32 on the CPU.

        Raises:
            AudioInputError: empty, too short or long, not finite, or not one channel.
            LanguageError: a language without a speech encoder.
        """
        self._languages(language, len(waveforms), "speech")
        assert self._speech_encoder is not None  # otherwise the bundle lists no speech language
        features = [fbank(_checked(waveform, sample_rate)) for waveform in waveforms]
        out = torch.empty(len(features), self.dim)
        for batch in _length_sorted([len(f) for f in features], SPEECH_BATCH):
            lengths = torch.tensor([len(features[i]) for i in batch])
            padded = torch.nn.utils.rnn.pad_sequence([features[i] for i in batch], batch_first=True)  # [B, F, 80]
            padded = torch.nn.functional.pad(padded, (0, 0, 0, -padded.shape[1] % FRAMES_MULTIPLE))
            out[batch] = self._speech_encoder(padded.to(self.device), lengths.to(self.device)).float().cpu()
        return out

    def decode_text(
        self,
        concepts: Tensor,
        language: str | Sequence[str],
        *,
        beam: int = 1,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        max_tokens: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """One sentence a concept.

        Args:
            concepts: [B, C].
            language: one for all, or one each.
            beam: 1 is greedy.
            temperature: above 0 sample instead, token by token.
            seeds: of the sampling, one a concept; a concept with its seed gives the same in any batch.
            max_tokens: longest answer, the decoder's own limit at most.
            cancelled: asked between two steps.

        Raises:
            ContextError: the concepts are not finite, or not of this space's width.
            LanguageError: a language that the bundle does not hold.
            DecodingError: a beam with a temperature, or a number out of its range.
            DecodingCancelled: `cancelled()` answered true.
        """
        if concepts.ndim != 2 or concepts.shape[1] != self.dim or not bool(concepts.isfinite().all()):
            raise ContextError(f"give finite concepts, [B, {self.dim}], not {tuple(concepts.shape)}")
        languages = self._languages(language, len(concepts), "text")
        if self._text_decoder is None:
            raise LanguageError(f"bundle {self.bundle.name!r} has no text decoder; choose another with --bundle")
        limit = min(96 if max_tokens is None else max_tokens, self._text_decoder.config.max_tokens - 2)
        seeds = range(len(concepts)) if seeds is None else seeds
        options = DecodingOptions(beam=beam, temperature=temperature, max_tokens=limit, seeds=seeds)
        _check_options(options, len(concepts))
        texts: list[str] = []
        for start in range(0, len(concepts), BATCH):
            rows = languages[start : start + BATCH]
            prefixes = torch.tensor([self.tokenizer.target_prefix(tag) for tag in rows], device=self.device)
            chosen = replace(options, seeds=seeds[start : start + BATCH])
            batch = concepts[start : start + BATCH].to(self.device, torch.float32)
            ids = decode(self._text_decoder, batch, prefixes, self.tokenizer.eos, chosen, cancelled)
            texts += [self.tokenizer.decode(row) for row in ids]
        return texts

    def _languages(self, language: str | Sequence[str], count: int, kind: str) -> list[str]:
        tags = [language] * count if isinstance(language, str) else list(language)
        if len(tags) != count:
            raise LanguageError(f"{len(tags)} languages for {count} items; give one for all, or one each")
        known = self.bundle.languages[kind]
        for tag in {*tags, language} if isinstance(language, str) else set(tags):
            if base_language(tag) not in known:
                raise LanguageError(
                    f"language {tag!r} is not in bundle {self.bundle.name!r} for {kind}; choose: {', '.join(known)}"
                )
        return [base_language(tag) for tag in tags]


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


def _check_options(options: DecodingOptions, count: int) -> None:
    if options.beam < 1 or options.max_tokens < 1 or not 0 <= options.temperature < float("inf"):
        raise DecodingError("beam and max_tokens begin at 1, a temperature at 0")
    if options.beam > 1 and options.temperature > 0:
        raise DecodingError("a beam search does not sample; leave out beam or temperature")
    if len(options.seeds) != count:
        raise DecodingError(f"{len(options.seeds)} seeds for {count} concepts; give one each")


def _required(text: str) -> str:
    cleaned = " ".join(clean(text).split())
    if not cleaned:
        raise TextError("the text is empty; give at least one word")
    return cleaned


def _checked(waveform: Tensor, sample_rate: int) -> Tensor:
    samples = torch.as_tensor(waveform, dtype=torch.float32)
    if samples.ndim != 1:
        raise AudioInputError(f"a waveform has shape {tuple(samples.shape)}; give one channel, [T]")
    seconds = len(samples) / sample_rate
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise AudioInputError(
            f"a waveform lasts {seconds:.2f} s; a concept takes {MIN_SECONDS} to {MAX_SECONDS:.0f} s: cut it at pauses"
        )
    if not bool(samples.isfinite().all()):
        raise AudioInputError("a waveform holds samples that are not finite; read the file again")
    return samples if sample_rate == SAMPLE_RATE else _resampled(samples, sample_rate)


def _resampled(samples: Tensor, sample_rate: int) -> Tensor:
    import soxr

    return torch.from_numpy(soxr.resample(samples.numpy(), sample_rate, SAMPLE_RATE))


def _length_sorted(lengths: list[int], size: int) -> list[list[int]]:
    """Indices in batches of like length: little padding, whatever the order of the items."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[i : i + size] for i in range(0, len(order), size)]
