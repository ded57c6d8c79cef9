"""The benchmark of a live conversation's next concept."""

import argparse

import pytest

from scripts import bench, bench_thinking


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_thinking.add_options(parser)
    return parser.parse_args(given)


def test_each_model_and_each_way_to_words_is_timed() -> None:
    result = bench_thinking.run(arguments("--variants", "base,base@temperature=1", "--rounds", "2"))
    assert set(result["variants"]) == {"base", "base@temperature=1"}
    for row in result["variants"].values():
        assert 0 < row["concept_ms"] <= row["p95_ms"]
        assert row["within_budget"] == (row["concept_ms"] <= result["budget_ms"])
    assert result["sentence_ms"]["bank"] > 0
    assert result["rounds"] == 2


def test_a_model_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "thinking", "--variants", "nobody", "--force"])
    assert bench.main() == 2
    assert "no model 'nobody'" in capsys.readouterr().err
