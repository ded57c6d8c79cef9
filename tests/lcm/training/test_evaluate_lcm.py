"""Evaluation of concept models: perfect, foolish and untrained answers have the figures they must have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lcm.engine import Engine, variants_of
from lcm.errors import BundleError
from lcm.models.turns import ROLE_NARRATOR
from lcm.models.variants import built
from lcm.space import ConceptSpace
from lcm.training.concept_metrics import Truths
from lcm.training.concepts import ConceptTable
from lcm.training.decoded_metrics import Sample
from lcm.training.evaluate_lcm import engine_of, evaluate_lcm
from lcm.training.hits import Answers, answers, hit_figures, hit_share
from lcm.training.judge import CONTEXT_SENTENCES
from lcm.training.lcm_baselines import BagOfWords, NearestReply
from lcm.training.lcm_figures import Measuring, group_figures, predictor_figures, references, seeds_needed
from lcm.training.predictors import CopyLast, EnginePredictor, MeanConcept
from lcm.training.reply_items import ReplyItems, reply_items
from tests.lcm.training.conversations import TURNS, write_concepts
from tests.lcm.training.test_judge import Remembering

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ConceptTable:
    return write_concepts(tmp_path_factory.mktemp("concepts"))


@pytest.fixture(scope="module")
def items(table: ConceptTable) -> ReplyItems:
    return reply_items(table.documents("test"), table, per_corpus=50)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory, small_space: ConceptSpace) -> ConceptTable:
    """Concepts of a space that can decode them."""
    written = write_concepts(tmp_path_factory.mktemp("spoken"))
    concepts = small_space.encode_text([text for _, text in written.texts()], "eng")
    np.save(written.folder / "concepts.npy", concepts.numpy().astype(np.float16))
    manifest = written.folder / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("16", str(small_space.dim)), encoding="utf-8")
    return ConceptTable.open(written.folder)


class Oracle:
    """Knows the truth, and moves away from it by the seed's noise."""

    name = "oracle"

    def __init__(self, table: ConceptTable, noise: float) -> None:
        self.table, self.noise = table, noise

    def predictions(self, items: ReplyItems, seed: int) -> Tensor:
        truths = self.table.of(np.array([items.truth(item) for item in items.items]))
        return truths + self.noise * torch.randn(truths.shape, generator=torch.Generator().manual_seed(seed))


def measuring(table: ConceptTable, items: ReplyItems, space: ConceptSpace, *, judged: bool = True) -> Measuring:
    truths = Truths.of(items, table, context=6)
    return Measuring(truths, Sample.of(truths, 10), space, Remembering() if judged else None)


def test_a_perfect_prediction_has_perfect_figures(spoken: ConceptTable, small_space: ConceptSpace) -> None:
    items = reply_items(spoken.documents("test"), spoken, per_corpus=30)
    figures = predictor_figures(Oracle(spoken, 0.0), measuring(spoken, items, small_space), (0,))
    assert figures["l2"] == 0.0
    assert figures["ca"] == 100.0
    assert figures["par"] == pytest.approx(1.0, abs=1e-4)
    assert figures["variance_share"] == pytest.approx(1.0)
    assert figures["hits_at_1_of_20"]["dialogue"] == 100.0
    assert figures["hits_at_1_of_20"]["ci"]["dialogue"] == [100.0, 100.0]
    assert figures["n_decoded"] == 10
    assert {"l2_r", "mi", "rouge_l"} <= figures.keys()
    assert len(figures["examples"]) == 10


def test_seeds_are_averaged_inside_an_item(spoken: ConceptTable, small_space: ConceptSpace) -> None:
    items = reply_items(spoken.documents("test"), spoken, per_corpus=30)
    with_judge = measuring(spoken, items, small_space)
    noisy = Oracle(spoken, 0.1)
    alone = [predictor_figures(noisy, with_judge, (seed,)) for seed in (0, 1, 2)]
    together = predictor_figures(noisy, with_judge, (0, 1, 2))
    for name in ("l2", "l2_r", "ca", "rouge_l", "variance_share"):
        assert together[name] == pytest.approx(np.mean([figures[name] for figures in alone]), abs=2e-4), name
    assert together["seeds"] == [0, 1, 2]
    assert together == predictor_figures(noisy, with_judge, (0, 1, 2)), "the same for the same seeds"


def test_mutual_information_counts_tokens(table: ConceptTable, items: ReplyItems) -> None:
    truths = Truths.of(items, table, context=6)
    count = len(items.items)
    values = {name: np.zeros(count) for name in ("l2", "l2_r", "par", "ca", "rouge_l", "cosine", "norm")}
    values["mi_nats"] = np.array([2.0, 6.0, 5.0, *[np.nan] * (count - 3)])
    values["mi_tokens"] = np.array([4.0, 12.0, 0.0, *[np.nan] * (count - 3)])
    assert group_figures(values, np.arange(count), truths)["mi"] == pytest.approx(8 / 16)


def test_without_a_judge_the_figures_say_how_one_is_made(spoken: ConceptTable, small_space: ConceptSpace) -> None:
    items = reply_items(spoken.documents("test"), spoken, per_corpus=30)
    unjudged = measuring(spoken, items, small_space, judged=False)
    assert "mi" not in predictor_figures(CopyLast(spoken), unjudged, (0,))
    assert "judge_mini.yaml" in references(unjudged, frozenset())["judge_missing"]


def test_a_random_sentence_is_somebody_elses(table: ConceptTable, items: ReplyItems) -> None:
    sample = Sample.of(Truths.of(items, table, context=6), 10)
    assert sorted(sample.randoms) == sorted(sample.truths)
    assert all(len(context) <= CONTEXT_SENTENCES for context in sample.contexts)
    for own, other in zip(sample.truths, sample.randoms, strict=True):
        assert own != other or sample.truths.count(own) > 1


def test_distractors_come_from_other_dialogues_and_differ(table: ConceptTable, items: ReplyItems) -> None:
    texts = table.texts()
    for item in items.items:
        shown = [texts[row][1] for row in (items.truth(item), *item.others)]
        assert len(set(shown)) == 20
    assert items.items == reply_items(table.documents("test"), table, per_corpus=50).items


def test_ties_share_the_first_place() -> None:
    assert hit_share([0.5, 0.2, 0.1]) == 1.0
    assert hit_share([0.5, 0.5, 0.1]) == 0.5
    assert hit_share([0.5, 0.6, 0.1]) == 0.0


def test_baselines_stand_beside_chance(table: ConceptTable) -> None:
    items, training = reply_items(table.documents("test"), table, per_corpus=200), table.documents("train")
    hits = {
        lookup.name: hit_figures(answers(lookup.predictions(items, 0), items, table), items)["dialogue"]
        for lookup in (NearestReply.of(training, table), MeanConcept(training, table), CopyLast(table))
    }
    # Here a training context tells the reply exactly, and nothing else does.
    assert hits["nearest_training_reply"] == 100.0
    assert hits["mean_concept"] < 25.0
    words = Answers(*BagOfWords.of(training, table).answers(items, table))
    assert 0.0 < hit_figures(words, items)["dialogue"] < 100.0


def test_the_nearest_reply_is_another_speakers_but_in_stories(table: ConceptTable) -> None:
    training = table.documents("train")
    documents = len(training.starts) - 1
    told = {
        (0, 1, 1, 0, 1, 1, 0, 0): 4,  # a sentence replies where the speaker changes, after the first of its dialogue
        (ROLE_NARRATOR,) * TURNS: TURNS - 1,
    }
    for roles, replies in told.items():
        spoken = replace(training, roles=np.tile(roles, documents).astype(np.uint8))
        assert len(NearestReply.of(spoken, table).replied) == replies * documents


def engine(variant: str, dim: int) -> Engine:
    torch.manual_seed(0)
    sizes = {"concept_dim": dim, "dim": 16, "layers": 1, "heads": 2, "ffn_dim": 16}
    model, sampling = built(variant, sizes)
    return Engine(model, "cpu", sampling, variant)


def test_an_untrained_model_guesses_and_needs_one_seed(table: ConceptTable, items: ReplyItems) -> None:
    model = EnginePredictor(engine("base", 16), table)
    assert seeds_needed(model, items) == (0,)
    said = answers(model.predictions(items, 0), items, table)
    assert hit_figures(said, items)["dialogue"] < 30.0


def test_what_draws_noise_is_asked_three_times(table: ConceptTable, items: ReplyItems) -> None:
    assert seeds_needed(Oracle(table, 0.1), items) == (0, 1, 2)
    assert seeds_needed(Oracle(table, 0.0), items) == (0,)


def test_the_bundles_models_are_those_of_the_registry() -> None:
    assert "base" in variants_of("mini")


def test_an_unknown_model_is_told(table: ConceptTable, small_space: ConceptSpace) -> None:
    with pytest.raises(BundleError, match="no model 'three_tower'; it has: base"):
        evaluate_lcm("mini", small_space, table, variants=["three_tower"])


@pytest.fixture(scope="module")
def mini() -> ConceptSpace:
    return ConceptSpace.load("mini", device="cpu")


def test_how_a_model_draws_is_part_of_its_name(mini: ConceptSpace) -> None:
    chosen = engine_of("mini", "base@temperature=0.5@steps=7", mini)
    assert (chosen.sampling.temperature, chosen.sampling.steps) == (0.5, 7)
    assert chosen.sampling.guidance == engine_of("mini", "base", mini).sampling.guidance
    with pytest.raises(BundleError, match="no option is called 'step'"):
        engine_of("mini", "base@step=7", mini)
    with pytest.raises(BundleError, match="steps=many"):
        engine_of("mini", "base@steps=many", mini)


def test_noise_of_base_is_drawn_anew_for_each_seed_and_item(mini: ConceptSpace, tmp_path: Path) -> None:
    table = write_concepts(tmp_path, dim=mini.dim)
    items = reply_items(table.documents("test"), table, per_corpus=20)
    model = EnginePredictor(engine_of("mini", "base@temperature=0.5", mini), table)
    assert seeds_needed(model, items) == (0, 1, 2)
    assert torch.equal(model.predictions(items, 1), model.predictions(items, 1))
