"""Text figures: everything that is promised, on held-out pairs alone, and what each figure means."""

import itertools
import json
from pathlib import Path

import pytest

from lcm.space import ConceptSpace
from lcm.training.evaluate_text import evaluate_text, near_duplicates, short, text_baselines

ANIMALS = {
    "eng": ["cat", "dog", "bird", "horse", "fish"],
    "fra": ["chat", "chien", "oiseau", "cheval", "poisson"],
    "spa": ["gato", "perro", "pájaro", "caballo", "pez"],
    "deu": ["Katze", "Hund", "Vogel", "Pferd", "Fisch"],
}
SEEN = {"eng": "I see a {} near the {}.", "fra": "{} et {} !", "spa": "Veo: {} y {}.", "deu": "Dort: {} und {}."}


def sentences(language: str) -> list[str]:
    return [SEEN[language].format(a, b) for a, b in itertools.permutations(ANIMALS[language], 2)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    rows = [
        {"component": n, "languages": [x, y], "texts": [a, b]}
        for x, y in itertools.combinations(sorted(ANIMALS), 2)
        for n, (a, b) in enumerate(zip(sentences(x), sentences(y), strict=True))
    ]
    for name, content in (("parallel.test", rows), ("parallel.train", []), ("sentences.train", [])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_every_promised_figure_is_there(small_space: ConceptSpace, prepared: Path) -> None:
    figures = evaluate_text(small_space, prepared)
    others = {"fra", "spa", "deu"}
    assert set(figures["xsim_error"]) == set(figures["xsim_error_no_near_duplicates"]) == others
    assert set(figures["autoencode"]) == others | {"eng"}
    assert len(figures["translate"]) == 12
    for scores in (*figures["translate"].values(), *figures["autoencode"].values()):
        assert scores["n"] == 20
        assert 0 <= scores["chrf"] <= 100
    assert 0 < figures["rank"] <= 20
    assert {"noise", "mean_cosine", "near_duplicates"} <= set(figures)


def test_baselines_know_cognates_and_chance(small_space: ConceptSpace, prepared: Path) -> None:
    figures = text_baselines(small_space, prepared)
    assert figures["chance_xsim_error"] == 99.9
    assert 0 < figures["copy_source_chrf"]["eng-fra"] < 40


def test_one_word_changed_is_a_near_duplicate(prepared: Path, tmp_path: Path) -> None:
    for path in prepared.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    row = {"language": "eng", "text": "I see a cow near the dog!"}
    (tmp_path / "sentences.train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = near_duplicates(sentences("eng"), tmp_path)
    assert found == {f"I see a {animal} near the dog." for animal in ("cat", "bird", "horse", "fish")}


def test_long_sentences_are_told_apart() -> None:
    assert short(["a", "b"], ["one two", "word " * 13]) == (["a"], ["one two"])
