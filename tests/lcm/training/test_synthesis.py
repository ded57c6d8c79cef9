"""Training voices: who may be heard while training, and that the test set is the same every time."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lcm.errors import TrainingDataError
from lcm.training.phones import phone_labels
from lcm.training.synthesis import (
    ACCENTS,
    ESPEAK_RATE,
    FESTIVAL_VOICES,
    FLITE_VOICES,
    HELD_OUT_VARIANTS,
    Espeak,
    Speaker,
    TrainingVariants,
    festival,
    flite,
    held_out_speaker,
    random_speaker,
    speak_reproducibly,
)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> TrainingVariants:
    return TrainingVariants(tmp_path_factory.mktemp("voices"), np.random.default_rng(0))


@pytest.fixture(scope="module")
def espeak(variants: TrainingVariants) -> Espeak:
    return Espeak(variants.data)


def test_every_accent_and_a_random_variant_speak(espeak: Espeak) -> None:
    for accent in {accent for accents in ACCENTS.values() for accent in accents}:
        samples = espeak.speak("Radio, taxi, piano.", Speaker(accent, "random0"))
        assert 0.5 < len(samples) / ESPEAK_RATE < 5
        assert np.abs(samples).max() > 500


def test_the_held_out_variants_cannot_be_heard_in_training(espeak: Espeak, variants: TrainingVariants) -> None:
    assert not set(HELD_OUT_VARIANTS) & set(variants.names)
    rng = np.random.default_rng(1)
    drawn = {random_speaker("deu", variants.names, rng).variant for _ in range(2_000)}
    assert len(drawn) > 150
    heard = [held_out_speaker("eng", number) for number in range(len(HELD_OUT_VARIANTS))]
    real = speak_reproducibly([("Hello.", speaker) for speaker in heard])
    for speaker, samples in zip(heard, real, strict=True):  # espeak-ng takes the plain voice where it has no variant
        assert (np.abs(espeak.speak("Hello.", speaker)[:2_000]) != np.abs(samples[:2_000])).any()
        assert not list(variants.data.rglob(speaker.variant))


def test_a_variant_drawn_again_sounds_different(espeak: Espeak, variants: TrainingVariants) -> None:
    before = espeak.speak("The cat is hungry.", Speaker("en-us", "random1"))
    variants.draw(np.random.default_rng(2))
    after = espeak.speak("The cat is hungry.", Speaker("en-us", "random1"))
    count = min(len(before), len(after))
    assert not np.array_equal(before[:count], after[:count])


def test_numbers_are_spoken_and_so_are_their_phones(espeak: Espeak) -> None:
    assert phone_labels(espeak.ipa("25 CATS!", "en-us")) == phone_labels(espeak.ipa("twenty five cats", "en-us"))
    assert espeak.ipa("One. Two.", "en-us").count("t") == 1  # both clauses are there
    assert phone_labels(espeak.ipa("Two.", "en-us"))[0] == phone_labels("t")[0]


def test_nothing_to_say_is_no_sound(espeak: Espeak) -> None:
    assert not espeak.speak("…", Speaker("fr", "m1")).any()


def test_the_test_set_sounds_the_same_every_time() -> None:
    asked = [("Where is the station?", held_out_speaker("eng", number)) for number in range(6)]
    first = speak_reproducibly(asked)
    again = speak_reproducibly(asked[::-1])[::-1]
    assert len({speaker.variant for _, speaker in asked}) == len(HELD_OUT_VARIANTS)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)


def test_the_unseen_engine_shares_no_speaker_with_flite() -> None:
    assert not {voice.split("_")[0] for voice in FESTIVAL_VOICES} & {voice.rstrip("16") for voice in FLITE_VOICES}


@pytest.mark.skipif(shutil.which("festival") is None, reason="festival is not installed")
def test_festival_speaks_quotes_and_apostrophes() -> None:
    spoken = festival(['It\'s a "good" day.', "Well, isn't it?"], FESTIVAL_VOICES[0])
    assert [content[:4] for content in spoken] == [b"RIFF", b"RIFF"]


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_speaks() -> None:
    assert flite("Good morning.", FLITE_VOICES[0])[:4] == b"RIFF"


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingDataError, match="apt-get install festival festvox-kallpc16k"):
        festival(["Hello."], FESTIVAL_VOICES[0])


def test_two_take_turns_in_one_process(espeak: Espeak) -> None:
    other = Espeak()
    speaker = Speaker("en-us", "m1")
    alone = other.speak("Good morning.", speaker)
    for _ in range(3):
        assert espeak.ipa("Guten Morgen.", "de") == other.ipa("Guten Morgen.", "de")
        assert len(espeak.speak("Good morning.", speaker)) > 0
        assert abs(len(other.speak("Good morning.", speaker)) - len(alone)) < len(alone) / 4
