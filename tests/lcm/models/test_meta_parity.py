"""Meta's weights in our models give what Meta's code gave: golden files by scripts/make_golden_lcm.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lcm.models.sampler import Sampling
from lcm.models.schedule import NoiseSchedule, trailing
from lcm.models.tower import Tower
from lcm.models.turns import ROLE_NARRATOR, Turns
from scripts.make_golden_lcm import CONCEPTS, SAMPLINGS, small_model
from scripts.meta_models import PUBLISHED, bare_model
from scripts.random_lcm import checksum, random_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "lcm"
TOLD = json.loads((GOLDEN / "outputs.json").read_text(encoding="utf-8"))


def golden(name: str) -> Tensor:
    """One array of the golden file."""
    with np.load(GOLDEN / "outputs.npz") as arrays:
        return torch.from_numpy(arrays[name])


@pytest.mark.parametrize(
    ("kind", "name", "sampling"), [(kind, *item) for kind, samplings in SAMPLINGS.items() for item in samplings.items()]
)
def test_our_models_continue_as_metas_do(kind: str, name: str, sampling: Sampling) -> None:
    model = small_model(kind)
    weights = random_weights(model)
    assert checksum(weights) == pytest.approx(TOLD["checksums"][kind], rel=1e-9), "numpy draws other numbers here"
    model.load_state_dict(weights, assign=True)
    torch.testing.assert_close(continued(model.eval(), sampling), golden(name), atol=1e-4, rtol=0.0)


@torch.inference_mode()
def continued(model: Tower, sampling: Sampling) -> Tensor:
    """[B, `CONCEPTS`, C] after the golden contexts, from the golden noise."""
    contexts, noise = golden("contexts"), golden("noise")
    turns = Turns.of(torch.full(contexts.shape[:2], ROLE_NARRATOR))
    asked = Turns(turns.roles[:, -1], turns.places[:, -1] + 1)
    state, draw = model.start(len(contexts)), model.drawer(sampling)
    model.read(contexts, turns, torch.full((len(contexts),), contexts.shape[1]), state)
    drawn = [draw(asked, state, noise[:, 0])]
    for number in range(1, CONCEPTS):
        said = Turns(asked.roles[:, None], asked.places[:, None])
        model.read(drawn[-1][:, None], said, torch.ones(len(contexts), dtype=torch.int64), state)
        asked = Turns(asked.roles, asked.places + 1)
        drawn.append(draw(asked, state, noise[:, number]))
    return torch.stack(drawn, dim=1)


def test_the_cosine_schedule_is_metas() -> None:
    torch.testing.assert_close(
        NoiseSchedule().alphas_cumprod(), torch.tensor(TOLD["alphas_cumprod"]), atol=1e-7, rtol=0.0
    )


def test_the_timesteps_are_metas_where_their_number_divides_a_hundred() -> None:
    for asked, times in TOLD["timesteps"].items():
        assert trailing(len(times), 100) == times, f"asked for {asked} steps"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_as_many_parameters_here(name: str) -> None:
    kind, sizes = PUBLISHED[name]
    model = bare_model(kind, sizes, context=128)
    assert sum(parameter.numel() for parameter in model.parameters()) == TOLD["parameters"][name]
