"""Phones: espeak-ng's IPA as labels."""

import pytest

from lcm.training.phones import LABELS, PHONES, collapsed, edit_distance, needed_frames, phone_labels


def spelled(labels: list[int]) -> list[str]:
    return [PHONES[label - 1] for label in labels]


def test_stress_pauses_and_language_switches_vanish() -> None:
    assert spelled(phone_labels("dʒˈʌst_ (en)ə(fr) bˌɒ̃ːx")) == ["d", "ʒ", "ʌ", "s", "t", "ə", "b", "ɒ", "x"]


def test_length_and_nasality_stay_with_their_vowel() -> None:
    assert spelled(phone_labels("fjˈuː mɛzˈɔ̃")) == ["f", "j", "uː", "m", "ɛ", "z", "ɔ̃"]


def test_every_phone_has_a_label_of_its_own() -> None:
    labels = phone_labels(" ".join(PHONES))
    assert sorted(set(labels)) == list(range(1, LABELS))


@pytest.mark.parametrize(("labels", "frames"), [([], 0), ([3], 1), ([3, 3], 3), ([3, 4, 4, 4], 6)])
def test_ctc_needs_a_frame_for_each_label_and_for_each_repeat(labels: list[int], frames: int) -> None:
    assert needed_frames(labels) == frames


def test_a_path_collapses_to_its_labels() -> None:
    assert collapsed([0, 5, 5, 0, 5, 6, 6, 0]) == [5, 5, 6]


@pytest.mark.parametrize(("a", "b", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0)])
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == distance
