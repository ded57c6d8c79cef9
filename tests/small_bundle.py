"""A small bundle: the real modules at a hundredth of their size, randomly initialised.

Its words mean nothing, its contracts all hold.
"""

import io
from dataclasses import asdict
from pathlib import Path

import sentencepiece
import torch

from lcm.bundle_writer import BundleWriter
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.reply_bank import PART, TEXTS, packed
from lcm.space.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from lcm.space.tokenizer import Tokenizer

LANGUAGES = ["eng", "fra", "spa", "deu"]
DIM = 32
_SENTENCES = [
    "The cat is hungry.",
    "Where is the station?",
    "Le chat a faim, bonjour.",
    "Ich habe keine Zeit heute.",
    "El gato tiene hambre y sed.",
    "Good morning, how are you today?",
    "We will meet at eight o'clock.",
    "Nous partons demain matin.",
]


def write_small_bundle(folder: Path) -> Path:
    """Writes the bundle; the same bytes every time."""
    torch.manual_seed(7)
    tokenizer = _tokenizer()
    vocab = sentencepiece.SentencePieceProcessor(model_proto=tokenizer).GetPieceSize() + 1
    encoder_config = TextEncoderConfig(vocab, 32, 1, 2, 64, 64, DIM, "attention", 2, 0.0)
    decoder_config = TextDecoderConfig(vocab, 32, 1, 2, 64, 24, DIM, 0.0)
    encoder = TextEncoder(encoder_config)
    with torch.no_grad():
        # Untrained, a decoder repeats its last token: of symbols that are not words, there shall be none.
        symbols = Tokenizer(tokenizer, LANGUAGES)
        encoder.embed.weight[[0, symbols.eos, *map(symbols.language_id, LANGUAGES)]] = 0
    decoder = TextDecoder(decoder_config, embed=encoder.embed)
    writer = BundleWriter(folder, "small")
    space_id = writer.write_space(tokenizer, LANGUAGES, asdict(encoder_config), encoder.state_dict())
    weights = {key: value for key, value in decoder.state_dict().items() if key != "embed.weight"}
    writer.write_part("text_decoder", asdict(decoder_config), weights, space_id)
    speech_config = SpeechEncoderConfig(
        dim=32, layers=1, heads=2, ffn_dim=64, reader_layers=1, reader_ffn_dim=32, concept_dim=DIM, dropout=0.0
    )
    speech = SpeechEncoder(speech_config)
    writer.write_part("speech_encoder", asdict(speech_config), speech.state_dict(), space_id)
    lcm_config = BaseLcmConfig(concept_dim=DIM, dim=32, layers=1, heads=2, ffn_dim=32, dropout=0.0)
    writer.write_part("base", asdict(lcm_config), BaseLcm(lcm_config).state_dict(), space_id)
    concepts = torch.randn(len(_SENTENCES), DIM)
    texts = [{language: f"{language} reply {n}" for language in LANGUAGES} for n in range(len(_SENTENCES))]
    tensors, sidecar = packed(concepts, torch.zeros(len(_SENTENCES)), texts)
    writer.write_part(PART, {"hubness": 0.5}, tensors, space_id, {TEXTS: sidecar})
    writer.describe(languages={"text": LANGUAGES, "speech": LANGUAGES})
    return folder


def _tokenizer() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(_SENTENCES * 20),
        model_writer=model,
        vocab_size=340,
        model_type="unigram",
        byte_fallback=True,
        hard_vocab_limit=False,
        control_symbols=[f"__{language}__" for language in LANGUAGES],
        minloglevel=2,
    )
    return model.getvalue()
