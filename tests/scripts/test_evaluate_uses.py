"""The measures of summaries and paragraphs measure what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.evaluate_uses import Story, _compared, _judged, _pk, _seamed, main


def _stories(count: int) -> list[Story]:
    """Each about something of its own, but for every other sentence."""
    about = torch.eye(2 * count)[:count]
    beside = torch.eye(2 * count)[count:]
    return [Story("eng", topic, torch.stack([topic, other] * 10)) for topic, other in zip(about, beside, strict=True)]


def test_a_title_is_found_by_a_summary_that_is_about_it() -> None:
    stories = _stories(5)
    about = _judged(stories, lambda concepts, count: [2 * n for n in range(count)])
    beside = _judged(stories, lambda concepts, count: [2 * n + 1 for n in range(count)])
    assert about["title_hits"] == 100
    assert beside["title_hits"] == 0  # all titles tie, and a tie is no hit


@pytest.mark.parametrize(("found", "error"), [([0, 5, 10], 0.0), ([0], 4 / 13), ([0, 6, 10], 2 / 13)])
def test_pk_counts_pairs_that_are_wrongly_together_or_apart(found: list[int], error: float) -> None:
    assert _pk([0, 5, 10], found, 15) == pytest.approx(error, abs=0.001)


def test_seams_are_counted_without_the_start() -> None:
    figures = _compared([[0, 5, 10]], [[0, 5, 7]], [15])
    assert (figures["precision"], figures["recall"]) == (50.0, 50.0)


def test_a_seamed_text_begins_a_piece_where_it_says() -> None:
    text, starts = _seamed(_stories(9), np.random.default_rng(1))
    own = text[:, :9].argmax(dim=1) + text[:, 9:].argmax(dim=1)
    changes = [at for at in range(1, len(own)) if own[at] != own[at - 1]]
    assert starts == [0, *changes]


def test_data_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate_uses", "--data", str(tmp_path)])
    assert main() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"evaluate_uses: cannot read {tmp_path}")
    assert line.endswith("point --data at the training data")
