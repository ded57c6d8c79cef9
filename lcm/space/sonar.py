"""SONAR: what Meta has published, under which licence, and its files in a folder as a bundle of ours.

The facts are the cards of sonar-space 0.5.0 and SONAR's LICENSE.md [SONAR repository]. The two disagree on Swedish:
its encoder is published and licensed, but has no card. Whether a file is what its card says is told by names and
shapes: no hashes are published. Knows nothing of networks: `agent/fetching/fetch.py` downloads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcm.bundle import TOKENIZER as TOKENIZER_FILE
from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.errors import BundleError
from lcm.fetched import SONAR, folder_option
from lcm.space.backend import fill
from lcm.space.checkpoint import Kind, checkpoint_tensors
from lcm.space.languages import Languages, known_languages
from lcm.space.memory import shapes_only
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from lcm.space.tokenizer import Tokenizer
from lcm.space.w2v_bert import W2vBertConfig, W2vBertEncoder

ADDRESS = "https://dl.fbaipublicfiles.com/SONAR/"
CODE_LICENCE = "MIT"
MIT, NON_COMMERCIAL = "MIT", "CC-BY-NC-4.0"
LICENCE_PAGES = {
    MIT: "https://github.com/facebookresearch/SONAR/blob/main/CODE_LICENSE.md",
    NON_COMMERCIAL: "https://github.com/facebookresearch/SONAR/blob/main/NC_MODEL_LICENSE.md",
}
_VOCABULARY = 256_206
_LONGEST_SECONDS = 30.0
TEXT_ENCODERS = {
    "basic": TextEncoderConfig(_VOCABULARY, max_tokens=514, first_position=2, dropout=0.0),
    "small": TextEncoderConfig(32_005, layers=6, ffn_dim=4_096, max_tokens=514, first_position=2, dropout=0.0),
}
_DECODER: dict[str, Any] = {"max_tokens": 512, "first_position": 2, "dropout": 0.0, "usual_tokens": 256}
TEXT_DECODERS = {
    "basic": TextDecoderConfig(_VOCABULARY, **_DECODER),
    "small": TextDecoderConfig(32_005, layers=6, ffn_dim=4_096, **_DECODER),
    "toy": TextDecoderConfig(1_024, dim=32, layers=2, heads=4, ffn_dim=128, concept_dim=32, **_DECODER),
}
_KINDS: dict[type[nn.Module], Kind] = {
    TextEncoder: "text_encoder", TextDecoder: "text_decoder", W2vBertEncoder: "speech_encoder"
}  # fmt: skip
SPEECH_ENCODERS = {"english": W2vBertConfig(), "non_english": W2vBertConfig(pooler_layers=6)}

# Published without and with the right to earn money by it.
_FREE_SPEECH = "arb cat cym dan deu est fin fra ind ita kor nld pes por ron spa swe swh tgl tur uzn"
_SPEECH = (
    "asm bel ben bos bul ces cmn guj heb hin hrv jpn kan lao lit lvs mal mar mkd mlt npi ory pan pol rus slk slv snd "
    "srp tam tel tha ukr urd vie yue"
)


@dataclass(frozen=True, slots=True)
class Card:
    """One published file."""

    name: str
    """As sonar-space calls it"""
    part: str
    """Of the bundle; `tokenizer` is no part"""
    file: str
    parameters: int
    licence: str
    languages: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where Meta publishes it."""
        return ADDRESS + self.file

    @property
    def about_bytes(self) -> int:
        """Its size, reckoned from the parameters, all float32."""
        return 4 * self.parameters or 5_000_000

    @property
    def saved_as(self) -> str:
        """Its name in the bundle's folder."""
        return TOKENIZER_FILE if self.part == "tokenizer" else self.file


def _speech_card(language: str, file: str, licence: str) -> Card:
    parameters = 658_084_160 if language == "eng" else 708_474_176
    return Card(
        f"sonar_speech_encoder_{language}", f"speech_encoder_{language}", file, parameters, licence, (language,)
    )


TEXT_LANGUAGES = tuple(known.tag for known in known_languages())
TOKENIZER = Card("tokenizer", "tokenizer", "sentencepiece.source.256000.model", 0, NON_COMMERCIAL, TEXT_LANGUAGES)
TEXT_CARDS = {
    "encoder": Card(
        "text_sonar_basic_encoder", "text_encoder", "sonar_text_encoder.pt", 766_091_264, NON_COMMERCIAL, TEXT_LANGUAGES
    ),
    "decoder": Card(
        "text_sonar_basic_decoder", "text_decoder", "sonar_text_decoder.pt", 866_902_016, NON_COMMERCIAL, TEXT_LANGUAGES
    ),
    "finetuned": Card(
        "text_sonar_finetuned_decoder",
        "text_decoder",
        "finetuned_decoder.pt",
        866_902_016,
        NON_COMMERCIAL,
        TEXT_LANGUAGES,
    ),
}
SPEECH_CARDS = {
    "eng": _speech_card("eng", "spenc.eng.pt", NON_COMMERCIAL),
    **{tag: _speech_card(tag, f"spenc.v3ap.{tag}.pt", MIT) for tag in _FREE_SPEECH.split()},
    **{tag: _speech_card(tag, f"spenc.v5ap.{tag}.pt", NON_COMMERCIAL) for tag in _SPEECH.split()},
}


def write_sonar_bundle(
    folder: Path, cards: Sequence[Card], text: str = "basic", *, hashes: Mapping[str, str] | None = None
) -> Bundle:
    """Describe published files as a bundle; what the folder held before stays in it.

    Args:
        folder: where the files lie, each `saved_as` its card says.
        cards: of tokenizer and text encoder at least, unless the folder is a bundle already.
        text: which architecture the text models have.
        hashes: of files whose SHA-256 is known already: reading gigabytes takes a while.
    """
    writer = BundleWriter(folder, SONAR, hashes=hashes)
    for card in sorted(cards, key=lambda c: c.part != "text_encoder"):  # the space first: the others belong to it
        if card.part == "tokenizer":
            continue
        config = asdict(_config(card, text))
        if card.part == "text_encoder":
            writer.adopt_space(list(card.languages), config, card.saved_as)
        else:
            writer.adopt_part(card.part, config, card.saved_as)
    spoken = [tag for tag in SPEECH_CARDS if f"speech_encoder_{tag}" in writer.description["parts"]]
    licences = writer.description.get("licences", {}) | {card.saved_as: card.licence for card in cards}
    licences = {file: licence for file, licence in licences.items() if file in writer.description["files"]}
    writer.describe(
        longest_seconds=_LONGEST_SECONDS,
        languages=writer.description["languages"] | {"speech": spoken},
        licences=licences,
    )
    return Bundle.open(folder)


def module_of(card: Card) -> nn.Module:
    """The module that a checkpoint fills, on the meta device: it has shapes, and no memory."""
    config = _config(card)
    with shapes_only():
        if isinstance(config, TextEncoderConfig):
            return TextEncoder(config)
        return TextDecoder(config) if isinstance(config, TextDecoderConfig) else W2vBertEncoder(config)


def misfit(path: Path, card: Card) -> str:
    """What shows that a file is not what its card says; empty if nothing does. Reads names and shapes, not weights."""
    try:
        if card.part == "tokenizer":
            found = Tokenizer.from_file(path, card.languages).vocab_size
            return "" if found == _VOCABULARY else f"it makes {found:,} tokens of its languages, not {_VOCABULARY:,}"
        return checkpoint_misfit(path, module_of(card))
    except BundleError as error:
        return " ".join(str(error).split())


def checkpoint_misfit(path: Path, module: nn.Module) -> str:
    """The first tensor of a checkpoint that does not fit a module on the meta device, or that it lacks; empty if none.

    Raises:
        BundleError: it is no checkpoint.
    """
    missing = dict.fromkeys(module.state_dict())

    def shapes() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in checkpoint_tensors(path, _KINDS[type(module)], shapes_only=True):
            missing.pop(name, None)
            yield name, tensor

    try:
        fill(module, shapes(), torch.device("meta"), torch.float32)
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        return " ".join(str(error).split())[:200]
    return f"{next(iter(missing))!r} is missing, and {len(missing) - 1} more" if missing else ""


def fetchable(bundle: Bundle, kind: str) -> Callable[[str], str]:
    """What to say of a language that a bundle lacks: how to fetch it, if SONAR has it; `kind` is `text` or `speech`."""

    def advice(written: str) -> str:
        published = Languages(TEXT_LANGUAGES if kind == "text" else list(SPEECH_CARDS), "SONAR")
        found = published.named(written)
        speech = f" --speech {','.join(found)}" if kind == "speech" else ""
        if not found:
            return ""
        if bundle.name == SONAR:
            return f"fetch it: noema fetch sonar{speech or ' --text'}{folder_option(bundle.folder)}"
        return f"SONAR's weights cover it: noema fetch sonar --text{speech} (docs/SONAR.md)"

    return advice


def _config(card: Card, text: str = "basic") -> TextEncoderConfig | TextDecoderConfig | W2vBertConfig:
    if card.part == "text_encoder":
        return TEXT_ENCODERS[text]
    if card.part == "text_decoder":
        return TEXT_DECODERS[text]
    return SPEECH_ENCODERS["english" if card.languages == ("eng",) else "non_english"]
