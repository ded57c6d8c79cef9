"""The concept space keeps its contract: shapes, languages, batches, bad input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcm.errors import (
    AudioInputError,
    BackendError,
    BundleError,
    ComputeDeviceError,
    ContextError,
    DecodingError,
    LanguageError,
    TextError,
)
from lcm.space import ConceptSpace
from lcm.space.fbank import fbank
from lcm.space.speech_encoder import speech_encoder_from_part

SENTENCES = ["Go!", "The cat is hungry.", "Where is the station, and when does the next train leave?", "Good morning."]


def tone(seconds: float, rate: int = 16_000) -> torch.Tensor:
    at = torch.arange(int(seconds * rate)) / rate
    return 0.3 * torch.sin(2 * torch.pi * 220 * at) * torch.sin(2 * torch.pi * 3 * at)


def test_text_becomes_one_concept_a_sentence(small_space: ConceptSpace) -> None:
    concepts = small_space.encode_text(SENTENCES, language="eng")
    assert concepts.shape == (4, small_space.dim)
    assert concepts.dtype == torch.float32
    assert concepts.isfinite().all()


def test_a_batch_of_texts_gives_each_the_concept_it_has_alone(small_space: ConceptSpace) -> None:
    together = small_space.encode_text(SENTENCES, language="eng")
    alone = torch.cat([small_space.encode_text([text], language="eng") for text in SENTENCES])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_the_same_text_twice_is_bit_identical(small_space: ConceptSpace) -> None:
    first, second = (small_space.encode_text([SENTENCES[1]], language="eng") for _ in range(2))
    assert torch.equal(first, second)


def test_languages_may_differ_within_a_batch(small_space: ConceptSpace) -> None:
    both = small_space.encode_text(["Bonjour.", "Hello there."], language=["fra", "eng_Latn"])
    torch.testing.assert_close(both[0], small_space.encode_text(["Bonjour."], language="fra")[0], atol=1e-4, rtol=0)


def test_speech_becomes_one_concept_a_waveform_at_any_rate(small_space: ConceptSpace) -> None:
    waveforms = [tone(0.7), tone(2.0), tone(1.1)]
    concepts = small_space.encode_speech(waveforms, sample_rate=16_000, language="eng")
    alone = torch.cat([small_space.encode_speech([w], language="eng") for w in waveforms])
    assert concepts.shape == (3, small_space.dim)
    torch.testing.assert_close(concepts, alone, atol=1e-4, rtol=0)
    telephone = small_space.encode_speech([tone(2.0, 8_000)], sample_rate=8_000, language="eng")
    assert torch.nn.functional.cosine_similarity(telephone, concepts[1:2]).item() > 0.9


def test_padding_speech_changes_no_concept(small_space: ConceptSpace) -> None:
    part = small_space.bundle.part("speech_encoder")
    encoder = speech_encoder_from_part(part.config, part.tensors())
    for frames in (33, 47, 48, 49):
        waveform = tone(frames / 100 + 0.015)
        features = fbank(waveform)
        assert len(features) == frames
        with torch.inference_mode():
            unpadded = encoder(features[None], torch.tensor([frames]))
        torch.testing.assert_close(small_space.encode_speech([waveform]), unpadded, atol=1e-4, rtol=0)


def test_numpy_waveforms_are_taken(small_space: ConceptSpace) -> None:
    assert small_space.encode_speech([np.zeros(16_000, dtype=np.float32)]).isfinite().all()  # type: ignore[list-item]


def test_decoding_gives_one_text_a_concept_whatever_the_batch(small_space: ConceptSpace) -> None:
    concepts = small_space.encode_text(SENTENCES, language="eng")
    texts = small_space.decode_text(concepts, language=["eng", "fra", "spa", "deu"])
    alone = [
        small_space.decode_text(c[None], tag)[0] for c, tag in zip(concepts, ("eng", "fra", "spa", "deu"), strict=True)
    ]
    assert texts == alone


def test_nothing_in_gives_nothing_out(small_space: ConceptSpace) -> None:
    assert small_space.encode_text([], language="eng").shape == (0, small_space.dim)
    assert small_space.decode_text(torch.empty(0, small_space.dim), language="eng") == []


@pytest.mark.parametrize("text", ["", "   ", "\x00\x1b\u200b"])
def test_empty_text_is_an_error(small_space: ConceptSpace, text: str) -> None:
    with pytest.raises(TextError, match="at least one word"):
        small_space.encode_text([text], language="eng")


@pytest.mark.parametrize("text", ["x" * 5_000, "word " * 1_000, "😀🎉", "a\x07b", "中文"])
def test_odd_text_still_becomes_a_concept(small_space: ConceptSpace, text: str) -> None:
    assert small_space.encode_text([text], language="eng").isfinite().all()


@pytest.mark.parametrize(
    ("language", "hint"),
    [
        ("klingon", "it covers eng, fra, spa, deu"),
        ("", "it covers eng, fra, spa, deu"),
        ("en", r"did you mean eng \(English\)\?"),
        ("German", r"did you mean deu \(German\)\?"),
        ("Spannish", r"did you mean spa \(Spanish\)\?"),
        ("swa", r"did you mean spa \(Spanish\)\?"),
    ],
)
def test_an_unknown_language_names_the_nearest(small_space: ConceptSpace, language: str, hint: str) -> None:
    with pytest.raises(LanguageError, match=hint):
        small_space.encode_text(["Hello."], language=language)


def test_one_language_for_each_or_one_for_all(small_space: ConceptSpace) -> None:
    with pytest.raises(LanguageError, match="2 languages for 1"):
        small_space.encode_text(["Hello."], language=["eng", "fra"])


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(0), "lasts 0.00 s"),
        (torch.zeros(800), "lasts 0.05 s"),
        (torch.zeros(31 * 16_000), "cut it at pauses"),
        (torch.full((16_000,), float("nan")), "not finite"),
        (torch.zeros(2, 16_000), "one channel"),
    ],
)
def test_waveforms_that_cannot_become_a_concept_say_why(
    small_space: ConceptSpace, waveform: torch.Tensor, message: str
) -> None:
    with pytest.raises(AudioInputError, match=message):
        small_space.encode_speech([waveform])


@pytest.mark.parametrize("waveforms", [torch.zeros(16_000), np.zeros(16_000), "talk.opus", ["talk.opus"]])
def test_what_are_no_waveforms_is_refused(small_space: ConceptSpace, waveforms: Any) -> None:
    with pytest.raises(AudioInputError, match=r"give (a list of waveforms|samples)"):
        small_space.encode_speech(waveforms)


@pytest.mark.parametrize("rate", [0, -16_000, 10**9])
def test_a_rate_that_nothing_has_is_refused(small_space: ConceptSpace, rate: int) -> None:
    with pytest.raises(AudioInputError, match="sample rate"):
        small_space.encode_speech([torch.zeros(16_000)], sample_rate=rate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "no precision 'bf16'; choose of float32, bfloat16"),
        ({"backend": "sonarspace"}, "no backend 'sonarspace'; choose of noema, sonar-space"),
        ({"parts": ["text_encodr"]}, "'text_encodr' is no part of a space"),
    ],
)
def test_loading_takes_no_name_that_it_does_not_know(small_bundle: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((BackendError, BundleError), match=message):
        ConceptSpace.load(small_bundle, "cpu", **options)


def test_concepts_can_be_learnt_from(small_space: ConceptSpace) -> None:
    """They come out of inference mode."""
    concepts = small_space.encode_text(["Hello."], "eng")
    [logits] = small_space.logits(concepts, ["Hello."], "eng")
    for given in (concepts, logits, small_space.encode_speech([torch.zeros(16_000)])):
        layer = torch.nn.Linear(given.shape[1], 1)
        layer(given).sum().backward()
        assert layer.weight.grad is not None


def test_arrays_are_concepts_too(small_space: ConceptSpace) -> None:
    concepts = small_space.encode_text(["Hello."], "eng")
    assert small_space.decode_text(concepts.numpy(), "fra") == small_space.decode_text(concepts, "fra")  # type: ignore[arg-type]


def test_logits_of_a_text_that_is_too_long_are_refused(small_space: ConceptSpace) -> None:
    with pytest.raises(TextError, match="split it into sentences"):
        small_space.logits(small_space.encode_text(["Hello."], "eng"), ["hello " * 2_000], "eng")


def test_one_text_is_not_taken_for_a_list_of_letters(small_space: ConceptSpace) -> None:
    with pytest.raises(TextError, match="a list of sentences"):
        small_space.encode_text("Hello.", language="eng")


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 0},
        {"beam": 5_000},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": 1e-40},
        {"temperature": float("nan")},
        {"beam": 2, "temperature": 1.0},
        {"seeds": [1, 2]},
        {"temperature": 1.0, "seeds": [2**70]},
    ],
)
def test_options_that_cannot_be_met_are_refused(small_space: ConceptSpace, options: dict[str, Any]) -> None:
    with pytest.raises(DecodingError):
        small_space.decode_text(small_space.encode_text(["Hello."], "eng"), "fra", **options)


@pytest.mark.parametrize("spoil", [lambda c: c[:, :-1], lambda c: c[0], lambda c: c * float("nan")])
def test_concepts_that_are_none_of_this_space_are_refused(
    small_space: ConceptSpace, spoil: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    with pytest.raises(ContextError, match=rf"give finite concepts, \[B, {small_space.dim}\]"):
        small_space.decode_text(spoil(small_space.encode_text(["Hello."], "eng")), "fra")


@pytest.mark.parametrize("change", [{"layers": 9}, {"not_yet_known": 1}])
def test_a_part_this_code_cannot_build_is_one_line(small_bundle: Path, tmp_path: Path, change: dict[str, int]) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    description = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    description["parts"]["text_decoder"]["config"] |= change
    (folder / "bundle.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(BundleError, match=r"'text_decoder' of .* does not fit this Noema") as caught:
        ConceptSpace.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(small_bundle: Path, device: str) -> None:
    with pytest.raises(ComputeDeviceError, match="choose auto"):
        ConceptSpace.load(small_bundle, device=device)
