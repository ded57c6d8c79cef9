"""The comparison with sonar-space measures what it says, on models that both can load."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lcm.bundle import Bundle
from lcm.space import ConceptSpace
from lcm.space.backend import TorchBackend, fill
from lcm.space.checkpoint import Kind, checkpoint_tensors
from lcm.space.sonar import SPEECH_ENCODERS, TEXT_DECODERS, TEXT_ENCODERS
from lcm.space.text_decoder import TextDecoder
from lcm.space.text_encoder import TextEncoder
from lcm.space.w2v_bert import W2vBertEncoder
from scripts import bench_space
from scripts.random_sonar import published_tensors
from tests.lcm.space.golden_bundle import GOLDEN, NEWER, SIZES, write_golden_bundle

SMALL = {"dim": SIZES["dim"], "layers": 2, "heads": SIZES["heads"], "ffn_dim": SIZES["ffn_dim"]}
SMALL |= {"pooler_heads": SIZES["heads"], "pooler_ffn_dim": SIZES["ffn_dim"]}
MODULES: dict[Kind, nn.Module] = {
    "text_encoder": TextEncoder(replace(TEXT_ENCODERS["basic"], **SIZES)),
    "text_decoder": TextDecoder(replace(TEXT_DECODERS["basic"], **SIZES)),
    "speech_encoder": W2vBertEncoder(replace(SPEECH_ENCODERS["english"], **SMALL)),
}
FILES = {"text_encoder": NEWER["text_encoder"], "text_decoder": NEWER["text_decoder"], "speech_encoder": NEWER["eng"]}


@pytest.mark.parametrize("kind", MODULES)
def test_random_models_are_named_and_shaped_as_published_ones(kind: Kind, tmp_path: Path) -> None:
    published = torch.load(GOLDEN / FILES[kind], weights_only=True)["model"]
    random = dict(published_tensors(MODULES[kind], kind))
    assert {name: tensor.shape for name, tensor in random.items()} == {n: t.shape for n, t in published.items()}
    torch.save({"model": random}, tmp_path / "random.pt")
    fill(MODULES[kind], checkpoint_tensors(tmp_path / "random.pt", kind), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("kind", bench_space.KINDS)
def test_every_case_runs_and_its_products_are_part_of_it(kind: str, tmp_path: Path) -> None:
    bundle = Bundle.open(write_golden_bundle(tmp_path / "golden", NEWER))
    backend = TorchBackend(bundle, torch.device("cpu"), "float32")
    space, module = ConceptSpace(bundle, backend, torch.device("cpu")), backend.module(bench_space.PART[kind])
    cases = list(bench_space.cases(kind, space, None))
    assert len({case.name for case in cases}) == {"encode_text": 4, "decode_text": 8, "encode_speech": 4}[kind]
    products, given = bench_space.products_of(module, cases[0].ours)
    assert len(given) == 1
    called: list[nn.Module] = []
    hooks = [m.register_forward_hook(lambda m, *_: called.append(m)) for m in module.modules() if m is not module]
    products()
    for hook in hooks:
        hook.remove()
    assert called
    assert all(hasattr(m, "in_features") or m is getattr(module, "output_proj", None) for m in called)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--also", "bf16"], "no 'bf16'"),
        (["--only", "encode_txt"], "no 'encode_txt'"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    bench_space.add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(given)
    assert message in capsys.readouterr().err
