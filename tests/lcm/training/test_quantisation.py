"""Quant-LCMs learn the entries of every codebook by one head."""

import math
from pathlib import Path

import numpy as np
import pytest

from lcm.training.lcm_variants import QuantizedTraining, lcm_trainer
from tests.lcm.training.conversations import write_concepts
from tests.lcm.training.small_lcms import QUANT, QUANT_C, QUANT_D, noted_steps, steps

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("config", "term", "of_a_guess"), [(QUANT_D, "entries", math.log(QUANT["entries"])), (QUANT_C, "distance", 1.0)],
    ids=["quant_d", "quant_c"],
)  # fmt: skip
def test_the_loss_falls_far_below_that_of_a_guess(
    config: QuantizedTraining, term: str, of_a_guess: float, tmp_path: Path
) -> None:
    long = config.model_copy(update={"epochs": 20})
    trainer = lcm_trainer(long, write_concepts(tmp_path / "concepts"), tmp_path / "run")
    terms = noted_steps(trainer)
    steps(trainer, 160)
    losses = [step[term] for step in terms]
    assert np.mean(losses[:5]) > 0.8 * of_a_guess
    assert np.mean(losses[-20:]) < 0.7 * of_a_guess
