"""Meta's sonar-space and fairseq2 as the backend of a space: the reference that our modules are proved equal to.

Loads the same checkpoints into Meta's own modules. Needs the extra `sonar`, whose fixed torch wants an environment of
its own (`./scripts/test --sonar` makes one). Knows nothing of text or waveforms.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lcm.bundle import Bundle, Part
from lcm.errors import BackendError
from lcm.space.backend import Precision, speech_part
from lcm.space.decoding import DecodingCancelled, DecodingOptions, Hypothesis, Interrupted
from lcm.space.text_decoder import TextDecoderConfig
from lcm.space.text_encoder import TextEncoderConfig
from lcm.space.tokenizer import PAD
from lcm.space.w2v_bert import W2vBertConfig

_EVEN = 2
"""sonar-space pads features to a multiple of the stride"""


class SonarSpaceBackend:
    """sonar-space 0.5 on fairseq2 0.5.

    Raises:
        BackendError: sonar-space is not installed, or the bundle's models are none of SONAR's.
    """

    def __init__(self, bundle: Bundle, device: torch.device, precision: Precision) -> None:
        try:
            import fairseq2  # noqa: F401
            import sonar  # noqa: F401
        except ImportError as error:
            raise BackendError(
                f"the backend sonar-space is not installed here ({error}); './scripts/test --sonar' makes one "
                "that has it (.venv-sonar/bin/python -m agent …); or leave the backend out: ours gives the same"
            ) from error
        if precision == "int8":
            raise BackendError("sonar-space has no int8; take bfloat16, or our backend")
        self._bundle, self._device, self._dtype = bundle, device, getattr(torch, precision)
        self._loaded: dict[str, Any] = {}

    def prepare(self, parts: Iterable[str]) -> None:
        """Load these parts now."""
        for part in parts:
            self.module(part)

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """[B, T] int64, padded with `PAD` → [B, C] float32 on the CPU."""
        from fairseq2.nn import BatchLayout

        layout = BatchLayout.of(tokens.to(self._device), (tokens != PAD).sum(dim=1).tolist())
        return self.module("text_encoder")(tokens.to(self._device), layout).sentence_embeddings.float().cpu()

    @torch.inference_mode()
    def encode_features(self, features: Tensor, lengths: Tensor, language: str) -> Tensor:
        """[B, F, 80], zero past each utterance's `lengths` [B] → [B, C] float32 on the CPU."""
        from fairseq2.nn import BatchLayout

        features = torch.nn.functional.pad(features, (0, 0, 0, features.shape[1] % _EVEN))
        given = features.to(self._device, self._dtype)
        module = self.module(speech_part(self._bundle, language))
        return module(given, BatchLayout.of(given, lengths.tolist())).sentence_embeddings.float().cpu()

    def identify_features(self, features: Tensor, lengths: Tensor, languages: Sequence[str]) -> tuple[Tensor, Tensor]:
        """None of SONAR's encoders hears more than one language.

        Raises:
            BackendError: always.
        """
        raise BackendError("sonar-space has no encoder that hears several languages; leave out the backend")

    @torch.inference_mode()
    def decode(
        self, concepts: Tensor, prefixes: Tensor, eos: int, options: DecodingOptions, cancelled: Interrupted
    ) -> list[Hypothesis]:
        """[B, C] and target prefixes [B, 2] → the best sentence of each, by fairseq2's beam search.

        Raises:
            BackendError: sampling, for which fairseq2 takes no seeds.
        """
        from fairseq2.generation.beam_search.generator import BeamSearchSeq2SeqGenerator
        from fairseq2.nn import BatchLayout
        from sonar.models.sonar_translation.model import DummyEncoderModel, SonarEncoderDecoderModel

        if options.temperature > 0:
            raise BackendError("sonar-space samples without seeds; leave out the temperature, or take our backend")
        if cancelled():
            raise DecodingCancelled
        assert options.max_tokens is not None  # the space knows its decoder's
        model = SonarEncoderDecoderModel(DummyEncoderModel(), self.module("text_decoder")).eval()
        generator = BeamSearchSeq2SeqGenerator(
            model,
            _vocabulary(TextDecoderConfig(**self._bundle.part("text_decoder").config).vocab_size),
            beam_size=options.beam,
            max_seq_len=prefixes.shape[1] + options.max_tokens + 1,
            len_penalty=options.length_penalty,
        )
        source, prompt = concepts.to(self._device, self._dtype), prefixes.to(self._device)
        found = generator(source, BatchLayout.of(source), prompt, BatchLayout.of(prompt)).hypotheses
        of_tags = self.logits(concepts, prefixes[:, :1])[:, 0].log_softmax(dim=1).gather(1, prefixes[:, 1:])[:, 0]
        return [_hypothesis(best[0], of_tag, eos) for best, of_tag in zip(found, of_tags.tolist(), strict=True)]

    @torch.inference_mode()
    def logits(self, concepts: Tensor, tokens: Tensor) -> Tensor:
        """[B, C] and the tokens so far [B, T] → [B, T, V] float32 on the CPU."""
        from fairseq2.nn import BatchLayout

        decoder, given = self.module("text_decoder"), tokens.to(self._device)
        source = concepts.to(self._device, self._dtype)[:, None]
        hidden = decoder.decode(given, BatchLayout.of(given), source, BatchLayout.of(source))
        return decoder.project(hidden).float().cpu()

    def module(self, name: str) -> Any:
        """Meta's module of a part; loaded if it was not."""
        if name not in self._loaded:
            part = self._bundle.part(name)
            if part.checkpoint is None:
                raise BackendError(f"{name!r} of {part.folder} is none of SONAR's models; leave out the backend")
            kind = "speech_encoder" if name.startswith("speech_encoder") else name
            try:
                module = _BUILDERS[kind](part, self._dtype)
            except (RuntimeError, LookupError, AttributeError, TypeError) as error:
                what = " ".join(str(error).split())[:200]
                raise BackendError(f"sonar-space cannot load {part.checkpoint} ({what}); ours may") from error
            self._loaded[name] = module.to(self._device, self._dtype).eval()
        return self._loaded[name]


def _hypothesis(found: Any, of_tag: float, eos: int) -> Hypothesis:
    """fairseq2's, in our terms: the first of its step scores has the language tag's added."""
    first, *others = found.step_scores.tolist()
    tokens = [token for token in found.seq.tolist() if token != eos]
    return Hypothesis(tokens, [first - of_tag, *others], float(found.score))


@functools.cache
def _vocabulary(size: int) -> Any:
    from fairseq2.data.tokenizers import VocabularyInfo

    return VocabularyInfo(size=size, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=0)


def _state(part: Part) -> Any:
    assert part.checkpoint is not None  # others were refused before
    with torch.serialization.safe_globals([torch.nn.Embedding]):
        return torch.load(part.checkpoint, map_location="cpu", weights_only=True)


def _text_sizes(config: TextEncoderConfig | TextDecoderConfig, max_tokens: int) -> dict[str, Any]:
    from fairseq2.data.tokenizers import VocabularyInfo

    return {
        "model_dim": config.dim,
        # Padding 1 as in sonar-space's own configurations: it decides where positions begin.
        "vocab_info": VocabularyInfo(size=config.vocab_size, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
        "num_encoder_layers": config.layers,
        "num_decoder_layers": config.layers,
        "num_encoder_attn_heads": config.heads,
        "num_decoder_attn_heads": config.heads,
        "ffn_inner_dim": config.ffn_dim,
        "max_seq_len": max_tokens,
    }


def _text_encoder(part: Part, dtype: torch.dtype) -> Any:
    from sonar.models.sonar_text.checkpoint import _convert_sonar_text_encoder_checkpoint
    from sonar.models.sonar_text.config import SonarTextEncoderConfig
    from sonar.models.sonar_text.factory import SonarTextEncoderFactory

    ours = TextEncoderConfig(**part.config)
    config = SonarTextEncoderConfig(pooling="mean", _from_fairseq=False, **_text_sizes(ours, ours.max_tokens))
    model = SonarTextEncoderFactory(config).create_model().to(dtype)
    model.load_state_dict(_convert_sonar_text_encoder_checkpoint(_state(part), config))
    return model


def _text_decoder(part: Part, dtype: torch.dtype) -> Any:
    from sonar.models.sonar_text.checkpoint import _convert_sonar_text_decoder_checkpoint
    from sonar.models.sonar_text.config import SonarTextDecoderConfig
    from sonar.models.sonar_text.factory import SonarTextDecoderFactory

    ours = TextDecoderConfig(**part.config)
    config = SonarTextDecoderConfig(
        activation_fn="ReLU",
        no_scale_embedding=False,
        no_token_positional_embeddings=False,
        learned_pos=False,
        emb_dropout_p=0.0,
        attention_dropout_p=0.0,
        activation_dropout_p=0.0,
        normalize_before=True,
        **_text_sizes(ours, ours.max_tokens),
    )
    model = SonarTextDecoderFactory(config).create_model().to(dtype)
    model.load_state_dict(_convert_sonar_text_decoder_checkpoint(_state(part), config))
    return model


def _speech_encoder(part: Part, dtype: torch.dtype) -> Any:
    from fairseq2.models.transformer import TransformerNormOrder
    from fairseq2.models.w2vbert import W2VBertConfig
    from sonar.models.sonar_speech import SonarSpeechEncoderConfig, SonarSpeechEncoderFactory
    from sonar.models.sonar_speech.checkpoint import _convert_sonar_speech_checkpoint

    ours = W2vBertConfig(**part.config)
    conformers = W2VBertConfig().w2v2_config.encoder_config
    conformers.model_dim, conformers.num_encoder_layers = ours.dim, ours.layers
    conformers.num_encoder_attn_heads, conformers.ffn_inner_dim = ours.heads, ours.ffn_dim
    conformers.depthwise_conv_kernel_size, conformers.fbank_stride = ours.kernel, ours.stride
    conformers.num_fbank_channels, conformers.feature_dim = ours.mel_bins, ours.mel_bins * ours.stride
    config = SonarSpeechEncoderConfig(
        w2v2_encoder_config=conformers,
        final_dropout_p=0.0,
        model_dim=ours.dim,
        max_seq_len=1024,
        pad_idx=1,
        bos_idx=2,
        num_decoder_layers=ours.pooler_layers,
        num_decoder_attn_heads=ours.pooler_heads,
        decoder_norm_order=TransformerNormOrder.POST,
        ffn_inner_dim=ours.pooler_ffn_dim,
        dropout_p=0.0,
    )
    model = SonarSpeechEncoderFactory(config).create_model().to(dtype)
    model.load_state_dict(_convert_sonar_speech_checkpoint(_state(part), config))
    return model


_BUILDERS = {"text_encoder": _text_encoder, "text_decoder": _text_decoder, "speech_encoder": _speech_encoder}
