"""Fewer bits in the weights: nearly the same concepts, and the same sentences."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from audio.files import read_audio
from lcm.space import ConceptSpace
from lcm.space.backend import Precision

RECORDING = Path(__file__).parents[2] / "recordings" / "first_words" / "audio.flac"
SENTENCES = ["The cat is hungry.", "Where is the station?", "I bought a new car yesterday."]


@pytest.fixture(scope="module")
def exact() -> ConceptSpace:
    return ConceptSpace.load("mini", device="cpu")


@pytest.fixture(scope="module", params=[name for name in get_args(Precision) if name != "float32"])
def rounded(request: pytest.FixtureRequest) -> ConceptSpace:
    if request.param == "int8":
        pytest.importorskip("torchao", reason="torchao is missing: pip install torchao")
    return ConceptSpace.load("mini", device="cpu", precision=request.param)


def test_text(exact: ConceptSpace, rounded: ConceptSpace) -> None:
    concepts, nearly = (space.encode_text(SENTENCES, "eng") for space in (exact, rounded))
    assert nearly.dtype == torch.float32
    assert not torch.equal(concepts, nearly)
    assert torch.cosine_similarity(concepts, nearly).min() > 0.999
    assert rounded.decode_text(concepts, "eng") == SENTENCES


def test_speech(exact: ConceptSpace, rounded: ConceptSpace) -> None:
    waveforms = [torch.from_numpy(read_audio(RECORDING))[: length * 16_000] for length in (2, 5)]
    concepts, nearly = (space.encode_speech(waveforms, language="eng") for space in (exact, rounded))
    assert not torch.equal(concepts, nearly)
    assert torch.cosine_similarity(concepts, nearly).min() > 0.995
    alone = torch.cat([rounded.encode_speech([waveform], language="eng") for waveform in waveforms])
    assert torch.cosine_similarity(alone, nearly).min() > 0.995
