"""Which language is spoken: one head on one encoder, or each language's own encoder and the decoder's confidence."""

from collections.abc import Sequence

import pytest
import torch

from lcm.errors import LanguageError
from lcm.space import ConceptSpace
from tests.lcm.space.golden_bundle import NEWER, waveforms, write_golden_bundle


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> ConceptSpace:
    """Random models of SONAR's shape, one speech encoder for English, one for French."""
    return ConceptSpace.load(write_golden_bundle(tmp_path_factory.mktemp("golden") / "bundle", NEWER), "cpu")


def test_the_language_whose_words_the_decoder_is_surest_of_is_taken(golden: ConceptSpace) -> None:
    heard = golden.identify(waveforms())
    concepts = {tag: golden.encode_speech(waveforms(), language=tag) for tag in ("eng", "fra")}
    scores = torch.tensor([[d.score for d in golden.decode(concepts[tag], tag)] for tag in ("eng", "fra")]).T
    assert [h.language for h in heard] == [("eng", "fra")[best] for best in scores.argmax(dim=1).tolist()]
    for number, utterance in enumerate(heard):
        torch.testing.assert_close(utterance.concept, concepts[utterance.language][number], atol=1e-5, rtol=0)
        assert list(utterance.probabilities.values()) == pytest.approx(scores[number].softmax(dim=0).tolist(), abs=1e-5)


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
