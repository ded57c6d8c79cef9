"""Sentences: one for each concept, in any of the languages, never longer than the cap."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lcm.space.sentences import SentenceStream, clean, split_sentences

STRETCHES = st.lists(
    st.sampled_from(
        [
            *("a", "B", "I", ".", "…", "?", "!", "。", "！", "»", '"', ")", "\n", "\t", " "),
            *(". ", "! ", "\n\n", "\r\n", "Dr. ", "z.B. ", "21. Mai", " 5. ", " Wort, ", "x" * 30),
            *("e\u0301", "\u0301", "\u200d", "\x07", "ﬁ", "か", "\u3099", "\u3000", "\ud83d", "😀"),
        ]
    )
)


@pytest.mark.parametrize(
    ("text", "language", "sentences"),
    [
        ("Hello. How are you?", "eng", ["Hello.", "How are you?"]),
        ("Dr. Smith met J. Brown. They spoke.", "eng", ["Dr. Smith met J. Brown.", "They spoke."]),
        ("No. I don't know.", "eng", ["No.", "I don't know."]),
        ("He is 12. She is 10.", "eng", ["He is 12.", "She is 10."]),
        ("Wir kommen am 5. Mai. Bis dann!", "deu", ["Wir kommen am 5. Mai.", "Bis dann!"]),
        ("Wait… what?! Really", "eng", ["Wait... what?!", "Really"]),
        ('He said "Stop!" Then he left.', "eng", ['He said "Stop!"', "Then he left."]),
        ("¿Qué tal? ¡Muy bien!", "spa", ["¿Qué tal?", "¡Muy bien!"]),
        ("« Va ! » dit-il.", "fra", ["« Va !", "» dit-il."]),
        ("A title\n\nA line.", "eng", ["A title", "A line."]),
        ("3.5 is a number. Yes.", "eng", ["3.5 is a number.", "Yes."]),
        (" \n\t ", "eng", []),
        ("", "eng", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, language: str, sentences: list[str]) -> None:
    assert split_sentences(text, language) == sentences


@pytest.mark.parametrize("text", ["ab. ", "dr. ", ". ", ".", "a.'", "A\n. "])
def test_the_time_is_linear_in_the_length(text: str) -> None:
    began = time.process_time()
    split_sentences(text * (200_000 // len(text)), "deu")
    assert time.process_time() - began < 5, "half a second; one that is quadratic takes half a minute"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. . Smith", ["Dr. .", "Smith"]),
        ("J. K. Rowling wrote. It sold.", ["J. K. Rowling wrote.", "It sold."]),
        ("One two. three dr. Four. . . five", ["One two. three dr. Four.", ".", ". five"]),
        ("So.... And", ["So....", "And"]),
        ("a.b. c! . D", ["a.b. c!", ".", "D"]),
    ],
)
def test_the_last_word_decides_wherever_it_stands(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_long_sentences_are_cut_at_clauses_and_lose_no_word() -> None:
    text = "so " * 40 + "we went on, " + "and on " * 60
    cut = split_sentences(text, max_chars=100)
    assert max(map(len, cut)) <= 100
    assert " ".join(cut).split() == text.split()
    assert any(part.endswith(",") for part in cut)


def test_a_word_longer_than_the_cap_is_cut_through() -> None:
    assert "".join(split_sentences("x" * 500, max_chars=200)) == "x" * 500


def test_control_characters_vanish_and_letters_stay() -> None:
    assert clean("a\x00b\u200b c\tñ😀\x1b[31m") == "ab c ñ😀[31m"


@given(STRETCHES, st.sampled_from(["eng", "deu"]), st.sampled_from([20, 40, 250]))
@example(["Dr", ". ", "Smith is 5", ". ", "He", " left"], "eng", 250)
@example(["a\u200d", "\u0301"], "eng", 250)
def test_text_that_is_still_being_written_has_the_same_sentences(text: list[str], language: str, cap: int) -> None:
    stream = SentenceStream(language, max_chars=cap)
    written = [sentence for stretch in text for sentence in stream.push(stretch)] + stream.flush()
    assert written == split_sentences("".join(text), language, max_chars=cap)


def test_a_sentence_is_known_to_be_complete_when_the_next_word_begins() -> None:
    stream = SentenceStream()
    assert [stream.push(stretch) for stretch in ["It is", " late.", " ", "Dr", ".", " Smith", "! ", "G"]] == [
        *([], [], [], ["It is late."]),
        *([], [], [], ["Dr. Smith!"]),
    ]


def test_a_sentence_without_an_end_is_given_in_stretches_under_the_cap() -> None:
    stream = SentenceStream(max_chars=20)
    assert [stream.push("and on ") for _ in range(6)] == [[], [], [], ["and on and on and"], [], ["on and on and on"]]
    assert stream.flush() == ["and on"]


@given(STRETCHES)
def test_what_is_clean_stays_as_it_is(text: list[str]) -> None:
    assert clean(clean("".join(text))) == clean("".join(text))
