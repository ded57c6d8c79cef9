"""Quantiser: the nearest entries, whose sums come ever nearer to the concept."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcm.errors import TrainingDataError
from lcm.models.quantizer import Quantizer, kmeans, nearest


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(seed: int = 0, report: Callable[[str], None] = lambda _: None) -> Quantizer:
    return Quantizer.fitted(drawn(600, 12), 5, 16, seed=seed, report=report)


def test_the_nearest_is_what_the_distances_say() -> None:
    points, entries = drawn(200, 12), drawn(30, 12, seed=1) * torch.linspace(0.3, 2.0, 30)[:, None]
    torch.testing.assert_close(nearest(points, entries), torch.cdist(points, entries).argmin(dim=1))


def test_each_codebook_takes_the_entry_nearest_to_what_those_before_left() -> None:
    quantizer, points = fitted(), drawn(50, 12, seed=2)
    codes = quantizer(points)
    left = points
    for number in range(5):
        torch.testing.assert_close(codes[:, number], torch.cdist(left, quantizer.codebook(number)).argmin(dim=1))
        left = left - quantizer.codebook(number)[codes[:, number]]
    torch.testing.assert_close(points - quantizer.sums(codes, torch.full((50,), 5)), left)


def test_sums_begin_with_nothing_and_come_nearer_with_every_codebook() -> None:
    quantizer, points = fitted(), drawn(600, 12)
    codes = quantizer(points)
    sums = [quantizer.sums(codes, torch.full((600,), count)) for count in range(6)]
    assert not sums[0].any()
    errors = torch.stack([(points - so_far).square().sum(dim=1).mean() for so_far in sums])
    assert bool((errors.diff() < 0).all())
    assert float(errors[-1]) < 0.25 * float(errors[0])


def test_each_concept_has_as_many_codebooks_as_it_asks_for() -> None:
    quantizer, counts = fitted(), torch.tensor([0, 5, 2])
    codes = quantizer(drawn(3, 12))
    for so_far, of, count in zip(quantizer.sums(codes, counts), codes, counts.tolist(), strict=True):
        entries = [quantizer.codebook(number)[of[number]] for number in range(count)]
        torch.testing.assert_close(so_far, sum(entries, torch.zeros(12)))


def test_enough_entries_give_the_concepts_back() -> None:
    points = drawn(16, 12)
    quantizer = Quantizer.fitted(points, 1, 16)
    torch.testing.assert_close(quantizer.sums(quantizer(points), torch.ones(16)), points)


def test_long_inputs_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, points = fitted(), drawn(50, 12, seed=2)
    at_once = quantizer(points)
    monkeypatch.setattr("lcm.models.quantizer._CHUNK", 7)
    assert torch.equal(quantizer(points), at_once)


def test_kmeans_ends_where_each_centre_is_the_mean_of_those_nearest_to_it() -> None:
    points = drawn(300, 4)
    centres = kmeans(points, 6, rounds=200, generator=torch.Generator().manual_seed(0))
    of = nearest(points, centres)
    for number in range(6):
        torch.testing.assert_close(centres[number], points[of == number].mean(dim=0))


def test_a_centre_that_nobody_is_near_moves() -> None:
    here, there = torch.zeros(1, 4), torch.ones(1, 4)
    points = torch.cat([here.expand(30, -1), there.expand(10, -1)])
    for seed in range(5):  # both begin at one place now and then
        centres = kmeans(points, 2, rounds=60, generator=torch.Generator().manual_seed(seed))
        assert sorted(centres[:, 0].tolist()) == [0.0, 1.0]


def test_fitting_is_the_same_for_a_seed_and_tells_what_is_left() -> None:
    told: list[str] = []
    first = fitted(report=told.append)
    assert torch.equal(fitted().entries, first.entries)
    assert not torch.equal(fitted(seed=1).entries, first.entries)
    left = [float(line.split(": ")[1].split()[0]) for line in told]
    assert [line.split(":")[0] for line in told] == [f"codebook {n} of 5" for n in range(1, 6)]
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] < 0.25


def test_too_few_concepts_say_what_to_do() -> None:
    with pytest.raises(TrainingDataError, match=r"15 training concepts for 16 entries in each; set entries to 15"):
        Quantizer.fitted(drawn(15, 12), 5, 16)
