"""The comparison with Meta's code measures what it says; where their code is at hand, beside it."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lcm.models.graphs import Graphed
from scripts import bench_lcm, bench_lcm_cuda, bench_lcm_training
from scripts.bench_floor import bytes_read, read_bandwidth
from scripts.bench_lcm_cases import Case, build_theirs, our_model
from scripts.bench_turns import taken_in_turns
from scripts.make_golden_lcm import small_model
from scripts.meta_lcm import theirs
from scripts.meta_models import bare_model, ffn_dim
from scripts.meta_process import MetaError, MetaProcess, missing_of_meta
from scripts.random_lcm import random_weights

QUICK = ["--only", "base_d512_t16", "--rounds", "1", "--no-training"]


def arguments(*given: str) -> argparse.Namespace:
    """As from the command line."""
    parser = argparse.ArgumentParser()
    bench_lcm.add_options(parser)
    return parser.parse_args(given)


AT_HAND = arguments()
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA GPU is missing")
needs_meta = pytest.mark.skipif(
    missing_of_meta(AT_HAND.meta, AT_HAND.meta_python) is not None,
    reason=f"{missing_of_meta(AT_HAND.meta, AT_HAND.meta_python)} is missing (NOEMA_META_LCM, NOEMA_META_LCM_PYTHON)",
)


def test_without_metas_code_ours_is_measured_alone_and_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = bench_lcm.run(arguments(*QUICK, "--meta", str(tmp_path), "--also", "bfloat16,int8"))
    told = capsys.readouterr().err
    assert f"no large_concept_model in {tmp_path}" in told
    assert "git clone" in told
    assert result["beside"] is None
    assert not {"ratio", "difference", "max_difference", "train_ratio"} & set(result)
    assert 0 < result["floor"]["base_d512_t16"] < 1
    assert result["ours_ms"]["base_d512_t16"] > 0
    for precision in ("bfloat16", "int8"):
        assert 0 < result[precision]["base_d512_t16"]["difference"] < 1


@needs_meta
@pytest.mark.slow
def test_beside_metas_code_both_draw_the_same_concepts(tmp_path: Path) -> None:
    result = bench_lcm.run(arguments(*QUICK))
    assert result["ratio"]["base_d512_t16"] > 0
    assert result["max_difference"] <= 1e-4
    with MetaProcess(AT_HAND.meta, AT_HAND.meta_python, 1) as meta:
        figures = bench_lcm.measured_case(
            Case("two_tower", 128, 5), meta, tmp_path, read_bandwidth(), arguments(*QUICK)
        )
    assert figures["difference"] <= 1e-4


@needs_meta
@pytest.mark.slow
def test_beside_metas_code_both_learn(tmp_path: Path) -> None:
    case = Case("two_tower", 128, 5)
    with MetaProcess(AT_HAND.meta, AT_HAND.meta_python, 1) as meta:
        build_theirs(case, meta, our_model(case)[1], tmp_path)
        step = bench_lcm_training.their_step(meta, torch.randn(2, 6, 1024), tmp_path)
        assert step() > 0


@pytest.mark.parametrize("kind", ["base", "two_tower"])
def test_a_step_of_our_training_changes_what_is_used(kind: str) -> None:
    model = small_model(kind)
    model.load_state_dict(random_weights(model), assign=True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert bench_lcm_training.OurTraining.of(model, torch.randn(2, 6, 32)).step() > 0
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert all("own.q_proj" in name or "own.k_proj" in name for name in still)


def test_what_has_to_be_read_is_the_tower_once_and_the_denoiser_without_what_can_be_tabulated() -> None:
    base = small_model("base")
    assert bytes_read(base, 50) == sum(parameter.nbytes for parameter in base.parameters())
    sizes = {"concept_dim": 32, "dim": 64, "layers": 2, "heads": 4, "denoiser_layers": 3}
    tower = bare_model("two_tower", sizes, 8)
    dim, inner = 64, ffn_dim(64)
    layer = 3 * (dim * dim + dim) + 3 * dim + 2 * (inner * dim + inner) + dim * inner + dim
    each = 3 * layer + (32 * dim + dim) + dim + (dim * 32 + 32)
    assert bytes_read(tower, 5) - bytes_read(tower, 4) == 4 * each


def test_every_parameter_has_one_name_of_metas() -> None:
    for kind in ("base", "two_tower"):
        ours = small_model(kind).state_dict()
        assert len({theirs(kind, name) for name in ours}) == len(ours)
    assert theirs("two_tower", "denoiser.layers.1.cross.q_proj.bias") == "denoiser.layers.1.cross_attention.q_proj.bias"
    assert theirs("base", "layers.0.attention_norm.weight") == "lcm.layers.0.self_attn_layer_norm.weight"


def test_sides_take_turns_until_the_time_is_spent() -> None:
    called: list[str] = []

    def side(name: str) -> float:
        called.append(name)
        return float(len(called))

    took = taken_in_turns({"a": lambda: side("a"), "b": lambda: side("b")}, 2, 60.0)
    assert called == ["a", "b", "a", "b"]
    assert took == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert taken_in_turns({"a": lambda: side("a")}, 9, 0.0) == {"a": [5.0]}


def test_a_python_without_what_metas_code_needs_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(MetaError, match="ModuleNotFoundError"):
        MetaProcess(tmp_path, Path(sys.executable), 1)


TWO_TOWER = {"concept_dim": 32, "dim": 64, "layers": 2, "heads": 4, "denoiser_layers": 2}


@pytest.mark.parametrize(
    ("device", "ways"), [("cpu", {"eager"}), pytest.param("cuda", {"eager", "engine", "graph"}, marks=needs_cuda)]
)
def test_a_gpus_bench_tells_latency_and_floor(device: str, ways: set[str]) -> None:
    model = bench_lcm_cuda.random_model("two_tower", TWO_TOWER, device)
    args = arguments("--rounds", "1", "--device", device)
    figures = bench_lcm_cuda.figures_of(model, 4, 2, floor_ms=0.001, args=args)
    assert set(figures) == {f"{way}_{figure}" for way in ways for figure in ("ms", "floor")}
    assert all(value > 0 for value in figures.values())


def test_what_a_gpus_bench_calls_kernel_by_kernel_is_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    captures: list[bool] = []
    call = Graphed.__call__

    def noted(self: Graphed, *inputs: torch.Tensor) -> torch.Tensor:
        captures.append(self.graphs)
        return call(self, *inputs)

    monkeypatch.setattr(Graphed, "__call__", noted)
    model = bench_lcm_cuda.random_model("two_tower", TWO_TOWER, "cpu")
    for graphs in (False, True):
        bench_lcm_cuda.conversation(model, 4, 2, "cpu", graphs=graphs)()
    assert captures == [False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--only", "base_d512"], "no 'base_d512'"),
        (["--also", "float8"], "no 'float8'"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(
    given: list[Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments(*given)
    assert message in capsys.readouterr().err
