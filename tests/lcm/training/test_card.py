"""The model card's generated sections: every figure stands in its place, hand-written text stays."""

import pytest

from lcm.errors import LcmError
from lcm.space import ConceptSpace
from lcm.training.card import rendered_figures, translated, with_section
from lcm.training.markdown import table

FIGURES = {
    "text": {
        "xsim_error": {"fra": 5.25},
        "xsim_error_no_near_duplicates": {"fra": 4.5},
        "translate": {
            "eng-fra": {"n": 940, "chrf": 44.4, "bleu": 20.1},
            "fra-eng": {"n": 780, "chrf": 46.6, "bleu": 22.2},
        },
        "near_duplicates": 40.6,
        "autoencode": {"eng": {"n": 900, "exact": 61.0, "chrf": 87.7}, "fra": {"n": 901, "exact": 55.0, "chrf": 83.3}},
        "noise": {"0.2": 2.5},
        "rank": 74.0,
        "mean_cosine": 0.03,
    },
    "speech": {
        "real": {
            "librispeech_eng": {
                "n": 48,
                "speakers": 9,
                "retrieval_error": 40.5,
                "ci": [30, 51],
                "sound_to_text_error": 44.4,
                "chrf": 33.3,
                "wer": 71,
            }
        },
        "spoken_language": {
            "chance": 25.0,
            "real": {
                "commonvoice_fra": {
                    "n": 5,
                    "speakers": 4,
                    "accuracy": 80.0,
                    "ci": [60, 100],
                    "mean_probability": 77.7,
                    "taken_for": {"fra": 4, "eng": 1},
                    "under_2_s": {"n": 1, "accuracy": 0.0},
                    "over_4_s": {"n": 4, "accuracy": 100.0},
                }
            },
        },
    },
    "lcm": {"base": {"l2": 9.9, "ca": 88.8, "hits_at_1_of_20": {"dialogue": 41.2, "ci": {"dialogue": [40, 42.4]}}}},
    "baselines": {
        "speech": {
            "real/librispeech_eng": {
                "mean_concept": {"chrf": 12.4, "wer": 103.4},
                "pocketsphinx": {"n": 20, "retrieval_error": 22.2, "ours": {"retrieval_error": 39.5}},
            }
        },
        "lcm": {"copy_last": {"hits_at_1_of_20": {"dialogue": 7.1}}},
    },
}


def test_figures_stand_beside_their_baselines() -> None:
    text = rendered_figures(FIGURES)
    assert "| French | 5.25 | 4.5 |" in text
    assert "| English | **87.7** | 44.4 |" in text
    assert "780 to 940 of them" in text
    assert "| French | 46.6 | **83.3** |" in text
    scores = "40.5 [30.0, 51.0] | 44.4 | 33.3 / 71"
    assert f"| real: librispeech_eng | 48 / 9 | {scores} | 12.4 / 103.4 | 22.2 (39.5), 20 |" in text
    told = "80.0 [60.0, 100.0] | 0.0 (1) | – | 100.0 (4) | 77.7 | 4 fra, 1 eng |"
    assert f"| real: commonvoice_fra | 5 / 4 | {told}" in text
    assert "Right of the 4 languages, per cent; guessing gives 25.0:" in text
    assert "eng-fra 20.1, fra-eng 22.2" in text
    assert "40.6 %" in text
    assert "| **base** | 9.90 | – | – | 88.8 | – | – | – | – |" in text
    assert "| copy last | 7.1 | – | – |" in text


def test_a_bundle_without_speech_or_lcm_has_no_such_section() -> None:
    text = rendered_figures({"text": FIGURES["text"]})
    assert "### Text" in text
    assert "### Speech" not in text


def test_a_section_is_replaced_and_the_rest_stays() -> None:
    card = "# By hand\n<!-- figures -->\nold\n<!-- /figures -->\nend"
    once = with_section(card, "figures", "new \\1 {x}")
    assert once == "# By hand\n<!-- figures -->\n\nnew \\1 {x}\n\n<!-- /figures -->\nend"
    assert with_section(once, "figures", "new \\1 {x}") == once


def test_a_card_without_the_section_is_a_mistake() -> None:
    with pytest.raises(LcmError, match="no section 'figures'; put <!-- figures -->"):
        with_section("# By hand", "figures", "new")


def test_tables_have_a_rule_below_the_head() -> None:
    assert table(["a", "b"], [[1, 2.5]]) == "| a | b |\n| --- | --- |\n| 1 | 2.5 |"


def test_examples_are_translated_a_sentence_at_a_time(small_space: ConceptSpace) -> None:
    alone = small_space.decode_text(small_space.encode_text(["Wait.", "Go on."], "eng"), "fra")
    assert translated(small_space, ["Wait. Go on.", "Wait."], "eng", "fra") == [" ".join(alone), alone[0]]
