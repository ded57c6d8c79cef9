"""Which language is spoken: one head on one encoder, or each language's own encoder and the decoder's confidence."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.errors import BundleError, LanguageError
from lcm.space import ConceptSpace, DecodingOptions
from lcm.space.batches import most_tokens
from lcm.space.decoding import DecodingCancelled
from lcm.space.fbank import fbank
from lcm.space.speech_encoder import SpeechFrames, speech_encoder_from_part
from lcm.space.spoken_language import PART, SpokenLanguage, SpokenLanguageConfig, phone_shares
from tests.lcm.space.golden_bundle import NEWER, waveforms, write_golden_bundle


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> ConceptSpace:
    """Random models of SONAR's shape, one speech encoder for English, one for French."""
    return ConceptSpace.load(write_golden_bundle(tmp_path_factory.mktemp("golden") / "bundle", NEWER), "cpu")


def write_head(folder: Path, encoder: Sequence[str] | None = None) -> None:
    """A random head for the bundle's speech encoder, or for that of other shards."""
    torch.manual_seed(0)
    bundle = Bundle.open(folder)
    part = bundle.part("speech_encoder")
    phones = part.config["phones"] - 1
    config = SpokenLanguageConfig(bundle.languages["speech"], phones, encoder or part.hashes)
    head = SpokenLanguage(config)
    torch.nn.init.normal_(head.head.weight, std=100)  # of a random encoder all phones are about alike
    BundleWriter(folder).write_part(PART, asdict(config), head.state_dict(), bundle.space_id)


@pytest.fixture(scope="module")
def headed(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ConceptSpace:
    """The small bundle, with a head."""
    folder = Path(shutil.copytree(small_bundle, tmp_path_factory.mktemp("headed") / "bundle"))
    write_head(folder)
    return ConceptSpace.load(folder, "cpu")


def test_each_utterance_has_the_concept_that_encode_speech_gives_it(headed: ConceptSpace) -> None:
    heard = headed.identify(waveforms())
    torch.testing.assert_close(
        torch.stack([h.concept for h in heard]), headed.encode_speech(waveforms()), atol=1e-5, rtol=0
    )
    for waveform, together in zip(waveforms(), heard, strict=True):
        [alone] = headed.identify([waveform])
        torch.testing.assert_close(alone.concept, headed.encode_speech([waveform])[0], atol=1e-5, rtol=0)
        assert alone.language == together.language
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-3)


def test_the_likeliest_of_the_allowed_languages_is_taken(headed: ConceptSpace) -> None:
    everyone = headed.identify(waveforms())
    assert [list(h.probabilities) for h in everyone] == [["eng", "fra", "spa", "deu"]] * len(everyone)
    few = headed.identify(waveforms(), languages=["spa", "fra_Latn", "spa"])
    for all_of_them, two in zip(everyone, few, strict=True):
        assert sum(two.probabilities.values()) == pytest.approx(1)
        assert two.language == max(two.probabilities, key=lambda tag: two.probabilities[tag])
        odds = {tag: all_of_them.probabilities[tag] for tag in ("spa", "fra")}
        total = sum(odds.values())
        assert two.probabilities == pytest.approx({tag: value / total for tag, value in odds.items()}, rel=1e-3)
        torch.testing.assert_close(two.concept, all_of_them.concept)


def test_the_head_reads_what_the_bundles_encoder_hears(headed: ConceptSpace) -> None:
    part, head_part = headed.bundle.part("speech_encoder"), headed.bundle.part(PART)
    head = SpokenLanguage(SpokenLanguageConfig(**head_part.config))
    head.load_state_dict(head_part.tensors())
    features = fbank(waveforms()[0])[None]
    frames = speech_encoder_from_part(part.config, part.tensors()).frames(features, torch.tensor([features.shape[1]]))
    expected = head(frames)[0].softmax(dim=0).tolist()
    [heard] = headed.identify(waveforms()[:1])
    assert list(heard.probabilities.values()) == pytest.approx(expected, abs=1e-3)


def test_shares_are_of_the_phones_heard_within_the_utterance() -> None:
    logits = torch.full((2, 4, 3), -20.0)  # blank and two phones
    logits[0, :, 2] = 20
    logits[1, :2, 1] = 20
    logits[1, 2:, 2] = 20  # past its end
    logits[:, 1, 0] = 40  # a blank says nothing
    shares = phone_shares(SpeechFrames(torch.zeros(2, 4, 1), logits, torch.tensor([4, 2])))
    torch.testing.assert_close(shares, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_a_head_for_another_encoder_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    write_head(folder, encoder=["0" * 64])
    space = ConceptSpace.load(folder, "cpu")  # all else may go on
    with pytest.raises(BundleError, match=r"another speech encoder; train it again: python -m scripts\.train"):
        space.identify(waveforms())


def test_the_language_whose_words_the_decoder_is_surest_of_is_taken(golden: ConceptSpace) -> None:
    heard = golden.identify(waveforms())
    concepts = {tag: golden.encode_speech(waveforms(), language=tag) for tag in ("eng", "fra")}
    limit = DecodingOptions(max_tokens=most_tokens(max(len(w) for w in waveforms()) / 16_000))
    scores = torch.tensor([[d.score for d in golden.decode(concepts[tag], tag, limit)] for tag in ("eng", "fra")]).T
    assert [h.language for h in heard] == [("eng", "fra")[best] for best in scores.argmax(dim=1).tolist()]
    for number, utterance in enumerate(heard):
        torch.testing.assert_close(utterance.concept, concepts[utterance.language][number], atol=1e-5, rtol=0)
        assert list(utterance.probabilities.values()) == pytest.approx(scores[number].softmax(dim=0).tolist(), abs=1e-5)


def test_decoded_again_alone_or_in_a_batch_is_the_same(golden: ConceptSpace) -> None:
    for waveform, together in zip(waveforms(), golden.identify(waveforms(), languages=["fra", "eng"]), strict=True):
        [alone] = golden.identify([waveform], languages=["fra", "eng"])
        assert list(alone.probabilities) == ["fra", "eng"]
        assert alone.language == together.language
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-4)
        torch.testing.assert_close(alone.concept, together.concept, atol=1e-4, rtol=0)


def test_telling_can_be_given_up(golden: ConceptSpace) -> None:
    with pytest.raises(DecodingCancelled):
        golden.identify(waveforms(), cancelled=lambda: True)


def test_getting_ready_to_tell_decodes_nothing(golden: ConceptSpace) -> None:
    begun = Counter[str]()
    decoder = golden._backend.module("text_decoder")  # type: ignore[attr-defined]
    hook = decoder.layer_norm.register_forward_hook(lambda *_: begun.update(["step"]))
    golden.prepare_to_identify()
    assert not begun
    golden.identify(waveforms()[:1])
    hook.remove()
    assert begun


def test_one_language_needs_no_telling(golden: ConceptSpace) -> None:
    heard = golden.identify(waveforms(), languages=["fra_Latn"])
    assert [(h.language, h.probabilities) for h in heard] == [("fra", {"fra": 1.0})] * len(waveforms())
    concepts = torch.stack([h.concept for h in heard])
    assert torch.equal(concepts, golden.encode_speech(waveforms(), language="fra"))
    assert golden.identify([], languages=["fra"]) == golden.identify([]) == []


def test_a_bundle_without_a_head_says_what_to_do(small_space: ConceptSpace) -> None:
    with pytest.raises(LanguageError, match=r"cannot tell spoken languages apart; name the one .* scripts\.train"):
        small_space.identify(waveforms())
    assert small_space.identify(waveforms(), languages=["spa"])[0].language == "spa"


@pytest.mark.parametrize(("languages", "message"), [(["swh"], "swh"), ([], "no language"), ("eng", "a list")])
def test_languages_that_cannot_be_told_are_refused(
    golden: ConceptSpace, languages: Sequence[str], message: str
) -> None:
    with pytest.raises(LanguageError, match=message):
        golden.identify(waveforms(), languages=languages)
