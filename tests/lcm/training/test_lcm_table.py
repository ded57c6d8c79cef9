"""The card's tables of concept models: each figure in its place, and nothing claimed that was not measured."""

from lcm.training.lcm_table import lcm_tables

BASE = {
    "l2": 22.0,
    "ca": 88.0,
    "mi": 0.123,
    "ci": {"ca": [87.0, 89.0], "mi": [0.1, 0.15]},
    "story": {"l2": 23.5},
    "hits_at_1_of_20": {"dialogue": 41.2, "ci": {"dialogue": [40.0, 42.4]}},
    "hits_by_keys": {"dialogue": 43.5, "ci": {"dialogue": [42.0, 45.0]}},
    "replies": {"lcm": {"distinct_2": 61.0, "generic": 4.0, "sentences": 1.5, "ci": {"generic": [0.0, 10.0]}}},
}
BASELINES = {"copy_last": {"l2": 30.0}, "chance": {"hits_at_1_of_20": {"dialogue": 5.0, "story": 5.0}}}
REFERENCES = {
    "truth_decoded": {"dialogue": {"l2_r": 3.4, "rouge_l": 85.8}},
    "mi": {"random": {"dialogue": {"mi": -0.02, "ci": [-0.05, 0.01]}}},
    "judge": {"name": "judge_mini", "perplexity": 38.2},
}


def test_models_and_look_ups_and_people_stand_in_one_table() -> None:
    text = lcm_tables({"base": BASE}, BASELINES, REFERENCES)
    dialogues, _, rest = text.partition("**Stories**")
    assert "| **base** | 22.00 | – | – | 88.0 [87.0, 89.0] | 0.123 [0.100, 0.150] | – | – | – |" in dialogues
    assert "| copy last | 30.00 |" in dialogues
    assert "| the truth | – | 3.40 | – | – | – | 85.8 |" in dialogues
    assert "| a random sentence | – | – | – | – | -0.020 [-0.050, 0.010] |" in dialogues
    assert "chance" not in dialogues, "it has hits alone"
    assert "| **base** | 23.50 |" in rest
    assert "perplexity on the same true sentences is 38.2" in rest
    assert "| chance | 5.0 | – | 5.0 |" in rest
    assert "| **base** | 41.2 [40.0, 42.4] | – | – |" in rest
    assert "| **base**, by keys | 43.5 [42.0, 45.0] | – | – |" in rest
    assert "| **base**, lcm | 61.0 | 4.0 [0.0, 10.0] | – | 1.50 |" in rest


def test_groups_without_figures_have_no_table() -> None:
    assert "SGD, templated" not in lcm_tables({"base": BASE}, BASELINES, REFERENCES)


def test_a_missing_judge_is_told_with_the_command_that_trains_it() -> None:
    assert "MI: not measured; do this." in lcm_tables({"base": BASE}, {}, {"judge_missing": "not measured; do this"})
