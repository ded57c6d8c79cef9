"""Training of the text space: its losses, its batches, and resuming as if it had never stopped."""

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lcm.bundle import Bundle
from lcm.errors import TrainingDataError
from lcm.space import ConceptSpace
from lcm.training.cross_entropy import linear_cross_entropy
from lcm.training.export import export_text
from lcm.training.muon import Muon, orthogonalise
from lcm.training.text import TextTrainer, TextTraining, info_nce, spread, xsim_error
from lcm.training.text_batches import TextCorpus, TextMix, batches, transcript

CONFIG = TextTraining(
    vocab_size=380, dim=32, encoder_layers=1, decoder_layers=1, heads=2, ffn_dim=64, concept_dim=48,
    tokens_a_side=200, warmup_steps=5, checkpoint_every=10_000, evaluate_every=10_000, dropout=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prepared corpus: numbers and animals in four languages."""
    folder = tmp_path_factory.mktemp("prepared")
    animals = [
        {"eng": "The cat", "fra": "Le chat", "spa": "El gato", "deu": "Die Katze"},
        {"eng": "The dog", "fra": "Le chien", "spa": "El perro", "deu": "Der Hund"},
        {"eng": "The bird", "fra": "L'oiseau", "spa": "El pájaro", "deu": "Der Vogel"},
    ]
    pairs = [
        {"component": n * 3 + i, "languages": ["eng", x], "texts": [f"{a['eng']} sees {n}.", f"{a[x]}: {n}."]}
        for n in range(120)
        for i, a in enumerate(animals)
        for x in ("fra", "spa", "deu")
    ]
    rows = [{"language": x, "text": f"{a[x]} ({n})!"} for n in range(60) for a in animals for x in a]
    for name, content in (("parallel.train", pairs), ("parallel.dev", pairs[::7]), ("sentences.train", rows)):
        lines = (json.dumps(row, ensure_ascii=False) for row in content)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_other_pieces_are_refused(prepared: Path, tmp_path: Path) -> None:
    trainer = TextTrainer(CONFIG, prepared, tmp_path / "run")
    trainer.save()
    (tmp_path / "other").mkdir()
    shutil.copy(prepared / "tokenizer.model", tmp_path / "other")
    with (tmp_path / "other/tokenizer.model").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(TrainingDataError, match="not the tokenizer"):
        export_text(tmp_path / "run/checkpoint.pt", tmp_path / "other/tokenizer.model", tmp_path / "bundle")


def losses(trainer: TextTrainer, steps: int) -> list[float]:
    feed = iter(trainer.train())
    seen: list[float] = []
    step = trainer.train_step

    def recorded(batch: object) -> dict[str, torch.Tensor]:
        metrics = step(batch)  # type: ignore[arg-type]
        seen.append(float(metrics["loss"]))
        return metrics

    trainer.train_step = recorded  # type: ignore[method-assign]
    list(islice(feed, steps))
    return seen


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(prepared: Path, tmp_path: Path) -> None:
    unbroken = losses(TextTrainer(CONFIG, prepared, tmp_path / "unbroken"), 12)
    first = TextTrainer(CONFIG, prepared, tmp_path / "broken")
    before = losses(first, 7)
    first.save()
    after = losses(TextTrainer(CONFIG, prepared, tmp_path / "broken"), 5)
    assert before + after == pytest.approx(unbroken, rel=1e-5)


def test_training_lowers_the_loss_and_the_export_is_a_space(prepared: Path, tmp_path: Path) -> None:
    trainer = TextTrainer(CONFIG, prepared, tmp_path / "run")
    seen = losses(trainer, 80)
    assert sum(seen[-10:]) < 0.7 * sum(seen[:10])
    trainer.save()
    figures = trainer.evaluate()
    assert figures["xsim_error_fra"] < 90
    space_id = export_text(tmp_path / "run/checkpoint.pt", prepared / "tokenizer.model", tmp_path / "bundle")
    space = ConceptSpace.load(tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle", verify=True).space_id == space_id
    concepts = space.encode_text(["The cat sees 3."], language="eng")
    assert concepts.norm().item() == pytest.approx(48**0.5, rel=0.02)


def test_a_finish_lowers_the_rate_to_zero_and_survives_a_resume(prepared: Path, tmp_path: Path) -> None:
    trainer = TextTrainer(CONFIG, prepared, tmp_path / "run")
    trainer.finish_in(10)
    list(islice(trainer.train(), 4))
    trainer.save()
    again = TextTrainer(CONFIG, prepared, tmp_path / "run")
    assert again.config.steps == 10
    list(again.train())
    assert again.step == 10
    assert again.weights.optimisers[0].param_groups[0]["lr"] < 0.2 * CONFIG.matrix_lr


def test_the_batches_of_a_chunk_depend_on_its_number_and_the_seed_alone(prepared: Path, tmp_path: Path) -> None:
    trainer = TextTrainer(CONFIG, prepared, tmp_path / "run")

    def first(seed: int, chunk: int) -> torch.Tensor:
        return batches(trainer.corpus, trainer.tokenizer, TextMix(), seed, chunk)[0]().sources

    assert torch.equal(first(0, 3), first(0, 3))
    assert first(0, 3).shape != first(0, 4).shape or not torch.equal(first(0, 3), first(0, 4))


def test_other_sentences_are_tokenised_anew(prepared: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "prepared"))
    tokenizer = TextTrainer(CONFIG, folder, tmp_path / "run").tokenizer
    before = TextCorpus.load(folder, tokenizer)
    with (folder / "sentences.train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"language": "eng", "text": "The fish sees 1."}\n')
    after = TextCorpus.load(folder, tokenizer)
    assert len(after.singles) == len(before.singles) + 1
    assert len(list(folder.glob("*.npz"))) == 1


def test_a_transcript_is_what_a_recogniser_would_write() -> None:
    assert transcript("C'est «Ça», n'est-ce pas ? OUI!") == "c'est ça n'est-ce pas oui"


def test_chunked_cross_entropy_has_the_loss_and_gradients_of_the_plain_one() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(700, 32, generator=generator).requires_grad_()
    table = torch.randn(90, 32, generator=generator).mul(0.3).requires_grad_()
    gold = torch.randint(90, (700,), generator=generator)
    (3 * linear_cross_entropy(hidden, table, gold)).backward()
    ours = [t.grad for t in (hidden, table)]
    for tensor in (hidden, table):
        tensor.grad = None
    plain = F.cross_entropy(hidden @ table.T, gold)
    (3 * plain).backward()
    assert linear_cross_entropy(hidden, table, gold).item() == pytest.approx(plain.item(), rel=2e-3)
    for mine, theirs in zip(ours, [t.grad for t in (hidden, table)], strict=True):
        assert mine is not None
        assert theirs is not None
        assert F.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0) > 0.999
        assert float(mine.norm()) == pytest.approx(float(theirs.norm()), rel=0.01)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert float(values.min()) > 0.4
    assert float(values.max()) < 1.4


def test_stacked_muon_steps_like_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(12, 12, generator=generator) for _ in range(3)]
    ours = [w.clone().requires_grad_() for w in weights]
    theirs = [w.clone().requires_grad_() for w in weights]
    optimisers = [
        Muon(ours, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.01, nesterov=True),
    ]
    for step in range(3):
        for parameters in (ours, theirs):
            for number, parameter in enumerate(parameters):
                seed = torch.Generator().manual_seed(10 * step + number)
                parameter.grad = torch.randn(12, 12, generator=seed)
        for optimiser in optimisers:
            optimiser.step()
    for mine, other, start in zip(ours, theirs, weights, strict=True):
        assert F.cosine_similarity((mine - start).flatten(), (other - start).flatten(), dim=0) > 0.995


def test_translations_of_one_group_are_not_each_others_negatives() -> None:
    a = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    same = torch.stack([a[0], a[0], a[1], a[2]])
    apart, together = torch.arange(4), torch.tensor([0, 0, 1, 2])
    assert info_nce(same, same, together, 0.05) < 0.1 < info_nce(same, same, apart, 0.05)


def test_retrieval_error_counts_both_directions() -> None:
    a = torch.eye(4)
    assert xsim_error(a, a) == 0
    assert xsim_error(a, a[[1, 0, 2, 3]]) == 50
    assert xsim_error(a, a[[1, 0, 2, 3]], asked=torch.tensor([True, False, True, True])) == pytest.approx(100 / 3)


def test_a_collapsed_space_is_seen_in_rank_and_cosine() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = spread(torch.randn(400, 32, generator=generator))
    collapsed = spread(torch.randn(400, 1, generator=generator) * torch.ones(32) + 5)
    assert healthy["rank"] > 28
    assert abs(healthy["mean_cosine"]) < 0.05
    assert collapsed["rank"] < 2
    assert collapsed["mean_cosine"] > 0.9
