"""Speech figures: what counts as found, intervals, normalised text, sets topped up with distractors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lcm.training.evaluate_speech import (
    SET_CANDIDATES,
    _topped_up,
    bootstrap_interval,
    evaluation_sets,
    retrieval,
    spoken_form,
    text_scores,
)
from lcm.training.recordings import Recordings, held_out_sentences, write_recordings
from tests.lcm.training.speech_stores import tiny_stores


def test_retrieval_counts_both_directions() -> None:
    written = torch.eye(5)  # three clips' transcripts, two distractors
    heard = torch.stack([written[0], written[3], written[2] + 0.1 * written[0]])  # the second is taken for a distractor
    figures = retrieval(heard, written, np.array([True, True, False]), ["a", "b", "b"])
    assert figures["n"] == 3
    assert figures["candidates"] == 5
    assert figures["sound_to_text_error"] == pytest.approx(33.3)
    # The second transcript is equally far from every clip: argmax takes the first, which is wrong too.
    assert figures["retrieval_error"] == pytest.approx(33.3)
    assert figures["n_up_to_8_s"] == 2
    assert figures["retrieval_error_up_to_8_s"] == 50.0
    assert figures["ci"][0] <= figures["retrieval_error"] <= figures["ci"][1]


def test_perfect_hearing_has_no_error() -> None:
    concepts = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    figures = retrieval(concepts * 3, concepts, np.ones(20, dtype=bool), [""] * 20)
    assert (figures["retrieval_error"], figures["ci"]) == (0.0, [0.0, 0.0])


def test_the_interval_narrows_with_more_clips() -> None:
    few, many = (bootstrap_interval(np.tile([0.0, 100.0], n), [""] * 2 * n) for n in (10, 1_000))
    assert few[1] - few[0] > 4 * (many[1] - many[0])
    assert few[0] < 50 < few[1]


def test_the_interval_widens_where_speakers_differ() -> None:
    values, speakers = np.repeat([0.0, 100.0], 500), [str(n // 100) for n in range(1_000)]  # five never, five always
    by_speaker, by_clip = bootstrap_interval(values, speakers), bootstrap_interval(values, ["one"] * 1_000)
    assert by_speaker[1] - by_speaker[0] > 5 * (by_clip[1] - by_clip[0])


@pytest.mark.parametrize(
    ("text", "language", "normal"),
    [
        ("Don't say 2 WORDS!", "eng", "don't say two words"),
        ("L’été, peut-être ?", "fra", "l'été peut être"),
        ("¿Dónde están las 12?", "spa", "dónde están las doce"),
        ("Größe: 7.", "deu", "größe sieben"),
    ],
)
def test_spoken_form(text: str, language: str, normal: str) -> None:
    assert spoken_form(text, language) == normal


def test_capitals_and_marks_cost_nothing() -> None:
    scores = text_scores(["Where do you live?", "No."], ["WHERE DO YOU LIVE", "YES"], "eng")
    assert scores["wer"] == 20.0
    assert text_scores(["It rains."], ["it rains"], "eng") == {"chrf": 100.0, "wer": 0.0}


def test_sets_are_of_one_corpus_and_topped_up_in_the_transcripts_own_form(tmp_path: Path) -> None:
    prepared, stores = tiny_stores(tmp_path)
    sets = {s.name: s for s in evaluation_sets(prepared, stores, "test", ["eng", "deu"])}
    assert set(sets) == {"synthetic/deu", "real/librispeech_eng"}
    real = sets["real/librispeech_eng"]
    assert sorted(real.texts) == ["and runs away", "jumps over", "the lazy dog"]
    assert real.distractors == ["this is secret"]
    assert len(real.texts) + len(real.distractors) <= SET_CANDIDATES
    assert [len(w) for w in real.waveforms()] == [real.store.clips[i].length for i in real.indices]
    assert all(len(w) == 1_600 for w in real.waveforms(cut=lambda samples: samples[:0]))  # nothing heard


def test_distractors_are_as_long_as_the_transcripts(tmp_path: Path) -> None:
    prepared, stores = tiny_stores(tmp_path)
    [real] = [s for s in evaluation_sets(prepared, stores, "test", ["eng", "deu"]) if s.name.startswith("real")]
    sentences = ["ab", "abc", "abcd efgh", "abcd efgi", "abcde fghij klm", "abcde fghij kln", "a" * 40]
    topped = _topped_up(real, sentences, candidates=6)  # transcripts of 13, 12 and 10 characters
    assert sorted(map(len, topped.distractors)) == [9, 15, 15]
    assert len(_topped_up(real, sentences, candidates=100).distractors) == len(sentences)


def test_held_out_sentences_are_each_there_once(tmp_path: Path) -> None:
    prepared, _ = tiny_stores(tmp_path)
    assert held_out_sentences(prepared, "deu", "test", 10) == ["Das ist geheim."]
    assert held_out_sentences(prepared, "fra", "test", 10) == []


def test_recordings_come_back_as_they_were_written(tmp_path: Path) -> None:
    samples = [np.linspace(-1, 0.99, n, dtype=np.float32) for n in (100, 7)]
    about = {"language": "eng", "text": "a", "corpus": "b.c"}
    write_recordings(tmp_path / "some.test", ((s, about) for s in samples))
    store = Recordings(tmp_path / "some.test")
    assert len(store) == 2
    for number, written in enumerate(samples):
        np.testing.assert_allclose(store[number], written, atol=2**-15)
