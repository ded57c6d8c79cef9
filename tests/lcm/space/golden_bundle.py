"""The golden checkpoints as a bundle: small random models and what sonar-space made of them (make_golden.py)."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcm.bundle_writer import BundleWriter
from lcm.space.sonar import SPEECH_ENCODERS, TEXT_DECODERS, TEXT_ENCODERS, TEXT_LANGUAGES

GOLDEN = Path(__file__).parents[2] / "golden" / "sonar"
TOLD: dict[str, Any] = json.loads((GOLDEN / "outputs.json").read_text(encoding="utf-8"))
GIVEN = dict(np.load(GOLDEN / "outputs.npz"))
SIZES = {key: TOLD["sizes"][key] for key in ("vocab_size", "dim", "heads", "ffn_dim", "layers", "concept_dim")}
NEWER = {"text_encoder": "sonar_text_encoder.pt", "text_decoder": "sonar_text_decoder.pt", "eng": "speech_eng.pt"}
OLDER = {"text_encoder": "older_text_encoder.pt", "text_decoder": "older_text_decoder.pt", "eng": "older_speech_eng.pt"}


def write_golden_bundle(folder: Path, files: dict[str, str], **changed: int) -> Path:
    """A bundle of the golden checkpoints in `folder`; `changed` are sizes that do not fit them."""
    shutil.copytree(GOLDEN, folder)
    writer = BundleWriter(folder, "golden")
    sizes = SIZES | changed
    writer.adopt_space(list(TEXT_LANGUAGES), asdict(replace(TEXT_ENCODERS["basic"], **sizes)), files["text_encoder"])
    writer.adopt_part("text_decoder", asdict(replace(TEXT_DECODERS["basic"], **sizes)), files["text_decoder"])
    small = {"dim": SIZES["dim"], "layers": 2, "heads": SIZES["heads"], "ffn_dim": SIZES["ffn_dim"]}
    small |= {"pooler_heads": SIZES["heads"], "pooler_ffn_dim": SIZES["ffn_dim"]}
    english, french = (asdict(replace(SPEECH_ENCODERS[kind], **small)) for kind in ("english", "non_english"))
    writer.adopt_part("speech_encoder_eng", english, files["eng"])
    writer.adopt_part("speech_encoder_fra", french, "speech_fra.pt")
    writer.describe(languages={"text": list(TEXT_LANGUAGES), "speech": ["eng", "fra"]})
    return folder


def waveforms() -> list[torch.Tensor]:
    """The golden sounds."""
    return [torch.from_numpy(GIVEN[f"waveform_{number}"]) for number in range(len(TOLD["seconds"]))]


def texts() -> list[str]:
    """The golden sentences."""
    return [sentence["text"] for sentence in TOLD["sentences"]]


def languages() -> list[str]:
    """Of the golden sentences."""
    return [sentence["language"] for sentence in TOLD["sentences"]]


def concepts() -> torch.Tensor:
    """Random ones, to decode."""
    return torch.from_numpy(GIVEN["concepts"])
