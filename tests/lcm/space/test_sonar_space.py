"""Our modules and Meta's side by side, on the same checkpoints: in the environment of `./scripts/test --sonar`."""

from pathlib import Path

import pytest

pytest.importorskip("sonar", reason="sonar-space is not installed (./scripts/test --sonar installs and runs it)")

from lcm.errors import BackendError
from lcm.space import ConceptSpace, DecodingOptions
from tests.lcm.space.golden_bundle import NEWER, OLDER, concepts, languages, texts, waveforms, write_golden_bundle


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConceptSpace, ConceptSpace]:
    folder = write_golden_bundle(tmp_path_factory.mktemp("golden") / "bundle", NEWER)
    return ConceptSpace.load(folder, "cpu"), ConceptSpace.load(folder, "cpu", backend="sonar-space")


def test_text_has_the_same_concepts(both: tuple[ConceptSpace, ConceptSpace]) -> None:
    ours, theirs = both
    assert (ours.encode_text(texts(), languages()) - theirs.encode_text(texts(), languages())).abs().max() < 1e-4


@pytest.mark.parametrize("language", ["eng", "fra"])
def test_speech_has_the_same_concepts(both: tuple[ConceptSpace, ConceptSpace], language: str) -> None:
    ours, theirs = both
    difference = ours.encode_speech(waveforms(), language=language) - theirs.encode_speech(
        waveforms(), language=language
    )
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_concepts_decode_to_the_same_words(both: tuple[ConceptSpace, ConceptSpace], beam: int) -> None:
    options = DecodingOptions(beam=beam, max_tokens=40)
    spoken = ["eng", "fra", "swh"] * 4
    ours, theirs = (space.decode(concepts(), spoken, options) for space in both)
    assert [decoded.tokens for decoded in ours] == [decoded.tokens for decoded in theirs]
    for own, other in zip(ours, theirs, strict=True):
        assert own.score == pytest.approx(other.score, abs=1e-4)
        assert own.log_probs == pytest.approx(other.log_probs, abs=1e-3)


def test_logits_are_the_same(both: tuple[ConceptSpace, ConceptSpace]) -> None:
    ours, theirs = (space.logits(concepts()[:3], texts()[:3], languages()[:3]) for space in both)
    assert max(float((own - other).abs().max()) for own, other in zip(ours, theirs, strict=True)) < 1e-3


def test_sampling_is_ours_alone(both: tuple[ConceptSpace, ConceptSpace]) -> None:
    with pytest.raises(BackendError, match="without seeds"):
        both[1].decode_text(concepts(), "eng", temperature=1.0)


def test_a_checkpoint_that_it_cannot_load_is_named(tmp_path: Path) -> None:
    folder = write_golden_bundle(tmp_path / "bundle", OLDER)
    with pytest.raises(BackendError, match=r"older_text_encoder\.pt"):  # its conversion of these forgets one level
        ConceptSpace.load(folder, "cpu", backend="sonar-space")
