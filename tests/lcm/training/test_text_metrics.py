"""Metrics of sentences against values worked out by hand."""

import pytest

from lcm.training.text_metrics import commonest, distinct_2, rouge_l


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    # [Lin 2004, §3.1]: «police killed the gunman», two candidates with the same words in another order
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 4)
    assert rouge_l("a b c", "a x b y c") == pytest.approx(2 * 3 / 8)


def test_case_and_punctuation_do_not_count() -> None:
    assert rouge_l("Well, yes!", "well yes") == 1.0


def test_no_words_have_nothing_in_common() -> None:
    assert rouge_l("", "yes") == 0.0
    assert rouge_l("...", "...") == 0.0


def test_distinct_2_counts_pairs_inside_sentences() -> None:
    assert distinct_2(["I do not know.", "I do not."]) == pytest.approx(3 / 5)
    assert distinct_2(["yes", "no"]) == 0.0, "no pairs"


def test_the_commonest_sentences_are_the_same_whatever_their_marks() -> None:
    assert commonest(["Yes.", "No.", "yes!", "Maybe.", "no"], 2) == {"yes", "no"}
