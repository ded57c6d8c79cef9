"""The comparison by document length: its arithmetic, and all of it at lengths that take no time."""

import argparse
import importlib.util
from pathlib import Path

import pytest

from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace
from scripts import bench_context
from scripts.context_costs import ConceptSizes, TokenSizes, crossing, crossing_of, equal_llama, fitted
from scripts.context_text import of_length, sentences

needs_transformers = pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="no transformers here")


def _args(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_context.add_options(parser)
    return parser.parse_args(given)


@pytest.mark.parametrize("parameters", [5_000_000, 13_426_433, 38_000_000, 1_600_000_000])
def test_the_rival_has_as_many_parameters(parameters: int) -> None:
    sizes = equal_llama(parameters, 8000)
    assert sizes.parameters == pytest.approx(parameters, rel=0.01)
    assert 16 < sizes.dim / sizes.layers < 200


@needs_transformers
def test_parameters_are_counted_as_hugging_face_does() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = TokenSizes(vocab=100, dim=64, layers=2, ffn_dim=150)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=150,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == sizes.parameters


def test_the_derived_cost_is_the_formulas() -> None:
    tokens = TokenSizes(vocab=0, dim=2048, layers=32, ffn_dim=8192)
    weights = tokens.parameters - 2 * 32 * 2048 - 2048
    assert tokens.cost(3000, 0) == 2 * weights * 3000 + 2 * 32 * 2048 * 3000**2
    # Two-Tower 1.6B, all written: m·[2n·P_decoder + 2·P_contextualiser + 2·P_denoiser·S]; a prediction needs no encoder
    concepts = ConceptSizes(503_000_000, 257_000_000, 866_000_000, 0, 2048, 100, 1_377_000_000, 0, 40)
    expected = 300 * (2 * 10 * 0.866e9 + 2 * 0.257e9 + 2 * 1.377e9 * 40)
    assert concepts.cost(0, 3000, 10) == pytest.approx(expected)


def test_a_window_makes_attention_linear() -> None:
    whole = ConceptSizes(0, 0, 0, 1, 1, 10_000)
    assert whole.cost(4000, 0, 1) == 4 * whole.cost(2000, 0, 1)
    narrow = ConceptSizes(0, 0, 0, 1, 1, 10)
    assert narrow.cost(4000, 0, 1) == pytest.approx(2 * narrow.cost(2000, 0, 1), rel=0.01)


def test_a_fit_finds_the_curve_and_no_negative_part() -> None:
    curve = fitted({n: 3 + 0.5 * n + 0.001 * n**2 for n in (10.0, 100.0, 1000.0, 3000.0)})
    assert curve(10_000) == pytest.approx(3 + 5_000 + 100_000)
    falling = fitted({10.0: 5.0, 20.0: 4.0, 30.0: 3.0})
    assert falling(1000) >= 0


def test_curves_cross_where_they_are_equal() -> None:
    assert crossing({10: 1.0, 1000: 1.0}, {10: 0.1, 1000: 10.0}) == pytest.approx(100)
    assert crossing({10: 1.0, 100: 2.0}, {10: 3.0, 100: 9.0}) is None
    assert crossing_of(lambda n: n, lambda n: n**2 / 50, 1, 1e6) == pytest.approx(50, rel=0.01)


def test_the_text_is_as_long_as_asked_for_and_the_same_each_time(small_bundle: Path) -> None:
    bank, space = ReplyBank.load(small_bundle), ConceptSpace.load(small_bundle, "cpu", parts=[])
    first, again = (of_length(sentences(bank, space.tokenizer, 30), 500) for _ in range(2))
    assert first == again
    counts = [len(sentence.tokens) for sentence in first]
    assert sum(counts) - counts[-1] < 500 <= sum(counts)
    assert min(counts) >= 30
    assert first[0].tokens[:5] == space.tokenizer.encode(first[0].text)[:5]


@pytest.mark.slow
@needs_transformers
@pytest.mark.timeout(400)
def test_writing_is_measured_on_every_side_and_drawn(tmp_path: Path) -> None:
    size = "two_tower"
    png = tmp_path / "c.png"
    args = _args("--lengths", "60", "--modes", "write", "--sizes", size, "--steps", "2", "--plot", str(png))
    figures = bench_context.run(args)["sizes"][size]
    ours, theirs = figures["parameters"]["concepts"], figures["parameters"]["tokens"]
    assert theirs == pytest.approx(ours, rel=0.01)
    written = figures["write"]
    for side in ("concepts", "together", "tokens"):
        for length, row in written[side].items():
            assert row["seconds"] > 0
            assert row["peak_mb"] >= row["loaded_mb"] > 0
            assert row["tokens_written"] >= int(length) * 0.5
    assert written["derived"]["ratio"].keys() == {"60"}
    assert written["crossing"]["seconds"]["concepts"]
    assert written["stopped"] == {}
    assert png.stat().st_size > 10_000


def test_what_does_not_fit_the_budget_is_computed_and_marked() -> None:
    one = bench_context.Series("mini", "read", "tokens")
    for length in (100, 200, 400):
        one.measured[length] = {"read_s": length / 100, "write_s": 1.0, "peak_mb": 100 + length, "rounds": 1}
        one.took[length] = one.seconds(length) + 3.0
    rows = bench_context._filled_up(one, [100, 200, 400, 800])
    assert rows["800"] == {"seconds": pytest.approx(9.0), "peak_mb": pytest.approx(900), "extrapolated": True}
    assert "extrapolated" not in rows["400"]
    one.left = [800]
    assert 3 + 5 * 2 <= one.expected_s() <= 3 + 5 * 4


def test_without_transformers_concepts_are_measured_alone_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_context, "_has", lambda package: False)
    args = _args(
        "--lengths", "40", "--ahead", "20", "--sizes", "mini", "--modes", "read", "--plot", str(tmp_path / "c")
    )
    figures = bench_context.run(args)["sizes"]["mini"]["read"]
    assert figures["concepts"]["40"]["tokens_read"] >= 20
    assert figures.keys() == {"concepts", "derived", "stopped"}
    assert figures["derived"] is None
    told = capsys.readouterr().err
    assert "transformers is missing" in told
    assert "matplotlib is missing" in told


def test_no_budget_measures_nothing() -> None:
    series = [bench_context.Series("mini", "read", side, left=[40]) for side in ("concepts", "tokens")]
    bench_context.measure(series, _args("--budget", "-1"))
    assert all(not one.measured and not one.left for one in series)


@pytest.mark.parametrize("given", ["", "0", "1e9", "long"])
def test_lengths_that_mean_nothing_are_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _args("--lengths", given)
    assert "--lengths" in capsys.readouterr().err
