"""SONAR's checkpoints in our modules give what sonar-space gave: golden files by scripts/make_golden.py."""

import functools
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lcm.space.backend
from lcm.bundle_writer import BundleWriter
from lcm.errors import BundleError
from lcm.space import ConceptSpace, DecodingOptions
from lcm.space.backend import TorchBackend
from lcm.space.fbank import fbank
from lcm.space.sonar import SPEECH_ENCODERS, TEXT_DECODERS, TEXT_ENCODERS, TEXT_LANGUAGES
from tests.lcm.space.golden_bundle import (
    GIVEN,
    NEWER,
    OLDER,
    SIZES,
    TOLD,
    concepts,
    languages,
    texts,
    waveforms,
    write_golden_bundle,
)

EOS = 3

WriteBundle = Callable[..., Path]


@pytest.fixture
def write_bundle(tmp_path: Path) -> WriteBundle:
    """Writes a bundle of the golden checkpoints."""
    return functools.partial(write_golden_bundle, tmp_path / "bundle")


@pytest.fixture(params=[(NEWER, True), (NEWER, False), (OLDER, True)], ids=["fairseq2", "unpacked", "fairseq"])
def space(request: pytest.FixtureRequest, write_bundle: WriteBundle, monkeypatch: pytest.MonkeyPatch) -> ConceptSpace:
    """The golden models, from checkpoints of either layout; also as other devices than a CPU have them."""
    files, packed = request.param
    if not packed:
        monkeypatch.setattr(lcm.space.backend, "can_pack", lambda: False)
    return ConceptSpace.load(write_bundle(files), "cpu")


def farthest(ours: torch.Tensor, theirs: Any) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.numpy() - theirs).max())


@pytest.mark.parametrize("sentence", TOLD["sentences"], ids=lambda sentence: sentence["language"])
def test_token_ids_are_the_same(space: ConceptSpace, sentence: dict[str, Any]) -> None:
    ours = space.tokenizer.encode_source(sentence["text"], sentence["language"], max_tokens=514)
    assert ours == sentence["ids"]


def test_concepts_of_text_are_the_same(space: ConceptSpace) -> None:
    assert farthest(space.encode_text(texts(), languages()), GIVEN["text_concepts"]) < 1e-4
    assert farthest(space.encode_text(texts(), "eng"), GIVEN["text_batch"]) < 1e-4


@pytest.mark.parametrize("search", TOLD["searches"], ids=lambda search: f"beam {search['beam']} {search['language']}")
def test_beam_search_finds_the_same_sentences(space: ConceptSpace, search: dict[str, Any]) -> None:
    options = DecodingOptions(beam=search["beam"], max_tokens=search["max_seq_len"] - 3)  # `</s> __lang__ … </s>`
    decoded = space.decode(concepts(), search["language"], options)
    assert [d.tokens for d in decoded] == [best["ids"][:-1] for best in search["best"]]
    assert [d.text for d in decoded] == search["texts"]
    assert [d.score for d in decoded] == pytest.approx([best["score"] for best in search["best"]], abs=1e-5)
    assert all(best["ids"][-1] == EOS for best in search["best"])


def test_logits_are_the_same(space: ConceptSpace) -> None:
    sentence = TOLD["sentences"][1]
    [logits] = space.logits(concepts()[:1], [sentence["text"]], sentence["language"])
    assert farthest(logits, GIVEN["logits"][1:]) < 1e-4


@pytest.mark.parametrize("number", range(len(TOLD["seconds"])))
def test_features_are_the_same(number: int) -> None:
    assert farthest(fbank(waveforms()[number]), GIVEN[f"fbank_{number}"]) < 1e-3


@pytest.mark.parametrize("language", ["eng", "fra"])
def test_concepts_of_speech_are_the_same(space: ConceptSpace, language: str) -> None:
    together = space.encode_speech(waveforms(), language=language)
    alone = torch.cat([space.encode_speech([waveform], language=language) for waveform in waveforms()])
    assert farthest(together, GIVEN[f"speech_{language}_batch"]) < 1e-4
    assert farthest(alone, GIVEN[f"speech_{language}_alone"]) < 1e-4


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.999), ("float16", 0.99999)])
def test_fewer_bits_change_little(write_bundle: WriteBundle, precision: Any, least: float) -> None:
    space = ConceptSpace.load(write_bundle(NEWER), "cpu", precision=precision)
    heard = space.encode_speech(waveforms(), language="eng")
    written = space.encode_text(texts(), languages())
    for ours, theirs in ((written, GIVEN["text_concepts"]), (heard, GIVEN["speech_eng_batch"])):
        assert float(torch.cosine_similarity(ours, torch.from_numpy(theirs)).min()) > least
    assert len(space.decode_text(written, languages(), beam=2)) == len(texts())


def test_the_first_tensor_that_does_not_fit_is_named(write_bundle: WriteBundle) -> None:
    with pytest.raises(BundleError, match=r"'embed\.weight' is \[\d+, 32\], expected \[\d+, 48\]"):
        ConceptSpace.load(write_bundle(NEWER, dim=48), "cpu")


def test_a_missing_tensor_is_named(write_bundle: WriteBundle) -> None:
    with pytest.raises(BundleError, match=r"'layers\.2\.self_attn_layer_norm\.weight' is missing, and \d+ more"):
        ConceptSpace.load(write_bundle(NEWER, layers=3), "cpu")


def test_a_tensor_without_a_place_is_named(write_bundle: WriteBundle) -> None:
    with pytest.raises(BundleError, match=r"no place for 'layers\.1\.self_attn_layer_norm\.weight'"):
        ConceptSpace.load(write_bundle(NEWER, layers=1), "cpu")


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", b"PK\x03\x04 cut off"])
def test_what_is_no_checkpoint_says_so(write_bundle: WriteBundle, content: bytes) -> None:
    folder = write_bundle(NEWER)
    (folder / NEWER["text_encoder"]).write_bytes(content)
    writer = BundleWriter(folder)
    writer.adopt_space(list(TEXT_LANGUAGES), asdict(replace(TEXT_ENCODERS["basic"], **SIZES)), NEWER["text_encoder"])
    with pytest.raises(BundleError, match="fetch it again"):
        ConceptSpace.load(folder, "cpu", parts=["text_encoder"])


def test_a_checkpoint_cannot_run_code(write_bundle: WriteBundle, tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    class Malicious:
        def __reduce__(self) -> Any:
            return Path.touch, (touched,)

    folder = write_bundle(NEWER)
    torch.save({"model": {"encoder_frontend.embed.weight": Malicious()}}, folder / NEWER["text_encoder"])
    writer = BundleWriter(folder)
    writer.adopt_space(list(TEXT_LANGUAGES), asdict(replace(TEXT_ENCODERS["basic"], **SIZES)), NEWER["text_encoder"])
    with pytest.raises(BundleError, match="cannot be read"):
        ConceptSpace.load(folder, "cpu", parts=["text_encoder"])
    assert not touched.exists()


@pytest.mark.parametrize(
    ("kind", "name", "config", "left_out", "parameters"),
    [
        ("text encoder", "basic", TEXT_ENCODERS["basic"], 0, 766_091_264),
        # Queries and keys of attention to the one concept, and their norm.
        ("text decoder", "basic", TEXT_DECODERS["basic"], 24 * (2 * (1024 * 1024 + 1024) + 2 * 1024), 866_902_016),
        # Queries and keys of the pooling token's attention to itself, and the other rows of its embedding.
        (
            "speech encoder",
            "english",
            SPEECH_ENCODERS["english"],
            3 * 2 * (1024 * 1024 + 1024) + 1023 * 1024,
            658_084_160,
        ),
        (
            "speech encoder",
            "others",
            SPEECH_ENCODERS["non_english"],
            6 * 2 * (1024 * 1024 + 1024) + 1023 * 1024,
            708_474_176,
        ),
    ],
)
def test_the_official_sizes_have_the_official_parameters(
    kind: str, name: str, config: Any, left_out: int, parameters: int
) -> None:
    from lcm.space.text_decoder import TextDecoder
    from lcm.space.text_encoder import TextEncoder
    from lcm.space.w2v_bert import W2vBertEncoder

    build: dict[str, Any] = {"text encoder": TextEncoder, "text decoder": TextDecoder, "speech encoder": W2vBertEncoder}
    with torch.device("meta"):
        module = build[kind](config)
    assert sum(parameter.numel() for parameter in module.parameters()) + left_out == parameters


def test_parts_are_loaded_when_they_are_needed(write_bundle: WriteBundle) -> None:
    space = ConceptSpace.load(write_bundle(NEWER), "cpu", parts=[])
    backend = space._backend
    assert isinstance(backend, TorchBackend)
    assert not backend._speech
    space.encode_speech(waveforms()[:1], language="fra")
    assert list(backend._speech) == ["speech_encoder_fra"]
    assert "_text_encoder" not in vars(backend)
