"""The loss through the decoder: the decoder's own figures, and a gradient that makes the true sentence likelier."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lcm.bundle import Bundle
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable
from lcm.training.decoded_loss import DecodedLoss, DecodedObjective, Speaker
from lcm.training.lcm_variants import DecodedTraining, lcm_trainer
from lcm.training.objective import Batch
from lcm.training.packing import PackingPlan, batch_of, steps_of
from tests.lcm.training.conversations import DIM, write_concepts

SENTENCES = ["I like dogs.", "What time is it?", "The cat is hungry, and so am I."]


class Texts(dict[int, tuple[str, str]]):
    """As a table's texts."""

    def of(self, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        return {row: self[row] for row in rows}


@pytest.fixture(scope="module")
def space() -> ConceptSpace:
    return ConceptSpace.load("mini", device="cpu", parts=["text_encoder", "text_decoder"])


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    texts = Texts({number: ("eng", text) for number, text in enumerate(SENTENCES)})
    return Speaker.of(Bundle.open("mini"), texts, torch.device("cpu"))  # type: ignore[arg-type]


def test_it_is_the_decoders_own_cross_entropy(space: ConceptSpace, speaker: Speaker) -> None:
    concepts = space.encode_text(SENTENCES, "eng")
    found = speaker.cross_entropy(concepts, [0, 1, 2], longest=40)
    for number, text in enumerate(SENTENCES):
        tokenizer = speaker.tokenizer
        ids = [*tokenizer.target_prefix("eng"), *tokenizer.encode(text), tokenizer.eos]
        [logits] = space.logits(concepts[number : number + 1], [text], "eng")
        expected = F.cross_entropy(logits, torch.tensor(ids[2:]))
        torch.testing.assert_close(found[number], expected, rtol=1e-3, atol=1e-4)


def test_the_own_concept_surprises_least(space: ConceptSpace, speaker: Speaker) -> None:
    concepts = space.encode_text(SENTENCES, "eng")
    own = speaker.cross_entropy(concepts, [0, 1, 2], longest=40)
    other = speaker.cross_entropy(concepts.roll(1, 0), [0, 1, 2], longest=40)
    assert bool((own < other - 1).all())


def test_the_gradient_goes_through_the_decoder_to_the_concept(space: ConceptSpace, speaker: Speaker) -> None:
    concepts = torch.zeros(1, 512, requires_grad=True)
    first = speaker.cross_entropy(concepts, [0], longest=40).sum()
    [gradient] = torch.autograd.grad(first, concepts)
    after = speaker.cross_entropy(concepts.detach() - 0.5 * gradient, [0], longest=40).sum()
    assert after < first
    assert all(p.grad is None for p in speaker.decoder.parameters())


def test_a_model_learns_from_it(tmp_path: Path) -> None:
    space = ConceptSpace.load("mini", device="cpu", parts=["text_encoder"])
    small = write_concepts(tmp_path / "concepts", space.space_id, dim=512)
    config = DecodedTraining(
        row=20, rows_a_step=4, epochs=8, warmup_steps=2, evaluate_items=5, objective=DecodedLoss(sentences=20),
        model=BaseLcmConfig(dim=32, layers=1, heads=2, ffn_dim=48, context=8),
    )  # fmt: skip
    trainer = lcm_trainer(config, ConceptTable.open(small.folder), tmp_path / "run", bundle="mini")
    losses: list[float] = []
    step = trainer.train_step

    def noted(*given: object) -> dict[str, torch.Tensor]:
        terms = step(*given)  # type: ignore[arg-type]
        losses.append(float(terms["cross_entropy"]))
        return terms

    trainer.train_step = noted  # type: ignore[method-assign,assignment]
    for _ in trainer.train():
        pass
    tenth = len(losses) // 5
    assert sum(losses[-tenth:]) < 0.8 * sum(losses[:tenth])


class Asked(Speaker):
    """A speaker that notes what it is asked."""

    def __init__(self) -> None:
        object.__setattr__(self, "rows", [])

    def cross_entropy(self, concepts: torch.Tensor, rows: Sequence[int], longest: int) -> torch.Tensor:
        """Nothing."""
        self.rows.extend(rows)  # type: ignore[attr-defined]
        return concepts.sum(dim=1) * 0


def test_processes_ask_together_what_one_would_ask(tmp_path: Path) -> None:
    """Though the model's dropout draws more where there are more rows."""
    table = write_concepts(tmp_path)
    model = BaseLcm(BaseLcmConfig(concept_dim=DIM, dim=32, layers=1, heads=2, ffn_dim=48, context=8, dropout=0.5))
    documents, plan = table.documents("train"), PackingPlan(row=20, rows_a_step=5, crop_share=0.0, seed=0)
    rows = batch_of(documents, steps_of(documents, plan, 0)[0], 20)
    concepts, targets = (table.of(part.clamp_min(0).numpy()) for part in (rows.sentences, rows.targets))

    def asked(*shares: slice) -> list[int]:
        speaker = Asked()
        for mine in shares:
            torch.manual_seed(3)
            batch = Batch(rows, mine, concepts, targets, torch.zeros(0, dtype=torch.int64), torch.zeros(0, DIM))
            DecodedObjective(DecodedLoss(sentences=30), speaker)(model.train(), batch)
        return list(speaker.rows)  # type: ignore[attr-defined]

    alone = asked(slice(0, 5))
    assert 10 < len(alone) < 60
    assert asked(slice(0, 1), slice(1, 5)) == alone
