"""SONAR's files as they are published, but for their weights: every name and shape is right, the bytes are few.

The names are those of the golden checkpoints, whose first layer stands for every other. A tensor's storage is far
smaller than its shape: as if one number had been broadcast before it was saved.
"""

import functools
import io
import re
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from lcm.space.checkpoint import our_name
from lcm.space.sonar import Card, module_of

GOLDEN = Path(__file__).parent / "golden" / "sonar"
_PIECES = 256_000
_GOLDEN_FILES = {
    "text_encoder": "sonar_text_encoder.pt",
    "text_decoder": "sonar_text_decoder.pt",
    "speech_encoder_eng": "speech_eng.pt",
}


@functools.cache
def published(card: Card, seed: int = 0, megabytes: float = 0.0) -> bytes:
    """What lies at a card's address; other seeds are other weights, of so many megabytes."""
    return _tokenizer() if card.part == "tokenizer" else _checkpoint(card, seed, megabytes)


def _checkpoint(card: Card, seed: int, megabytes: float) -> bytes:
    golden = _golden(_GOLDEN_FILES.get(card.part, "speech_fra.pt"))
    kind = "speech_encoder" if card.part.startswith("speech") else card.part
    keys = {our_name(key, kind): key for key in golden}  # type: ignore[arg-type]
    weights = torch.rand(1 + int(megabytes * 250_000), generator=torch.Generator().manual_seed(seed))
    state = dict(golden)
    for name, place in module_of(card).state_dict().items():
        key = keys[re.sub(r"layers\.\d+\.", "layers.0.", name)]
        shape = _published_shape(list(place.shape), golden[key], name)
        state[key.replace("layers.0.", _layer(name))] = weights[:1].view([1] * len(shape)).expand(shape)
    saved = io.BytesIO()
    torch.save({"model": state}, saved)
    return saved.getvalue()


def _layer(name: str) -> str:
    found = re.search(r"layers\.\d+\.", name)
    return found[0] if found else "layers.0."


def _published_shape(ours: list[int], golden: Tensor, name: str) -> list[int]:
    """Where our module leaves a dimension out, the published tensor has it."""
    if golden.ndim == len(ours):
        return ours
    return [golden.shape[0], *ours] if name == "pooler.token" else [*ours, 1]


def _golden(file: str) -> dict[str, Tensor]:
    content: dict[str, Any] = torch.load(GOLDEN / file, weights_only=True)
    return dict(content["model"])


@functools.cache
def _tokenizer() -> bytes:
    """The golden one with as many pieces as the published one: parts of a protocol buffer may be strung together."""
    golden = (GOLDEN / "tokenizer.model").read_bytes()
    missing = _PIECES - sentencepiece.SentencePieceProcessor(model_proto=golden).GetPieceSize()
    pieces = (f"piece {number}".encode() for number in range(missing))
    return golden + b"".join(b"\n%c\n%c%b" % (len(piece) + 2, len(piece), piece) for piece in pieces)
