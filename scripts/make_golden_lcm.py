"""Make the golden files of tests/golden/lcm: what Meta's public code makes of small random concept models.

    python -m scripts.make_golden_lcm --meta DIR

Their code runs in a process of its own (meta_process.py says how to bring it). The weights are not in the files: they
can be made again from their names (random_lcm.py); a checksum tells whether they were.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from lcm.models.sampler import Sampling
from lcm.models.tower import Tower
from scripts.meta_models import PUBLISHED, bare_model
from scripts.meta_process import MetaProcess, add_meta_options, missing_of_meta
from scripts.random_lcm import checksum, random_weights

OUT = Path(__file__).parent.parent / "tests" / "golden" / "lcm"
SIZES = {"concept_dim": 32, "dim": 64, "layers": 2, "heads": 4}
DENOISER_LAYERS = 2
ROWS, LENGTH, CONCEPTS = 2, 5, 2
SAMPLINGS = {
    "base": {"base": Sampling()},
    "two_tower": {
        "guided": Sampling(steps=5),
        "free": Sampling(steps=4, guidance=1.0),
        "one_step": Sampling(steps=1),
        "paper": Sampling(steps=50),
    },
}
ASKED = {50: 40}
"""Steps that their code takes, and what it has to be asked for where that differs: it takes every 100 // asked-th"""


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_meta_options(parser)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if missing := missing_of_meta(args.meta, args.meta_python):
        parser.error(f"{missing} is missing")
    args.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(ROWS, LENGTH, SIZES["concept_dim"], generator=generator).numpy()
    noise = torch.randn(ROWS, CONCEPTS, SIZES["concept_dim"], generator=generator).numpy()
    arrays: dict[str, Any] = {"contexts": contexts, "noise": noise}
    with MetaProcess(args.meta, args.meta_python, 1) as meta, tempfile.TemporaryDirectory() as folder:
        inputs, taken, handed = (Path(folder) / name for name in ("given.npz", "taken.npy", "weights.safetensors"))
        np.savez(inputs, contexts=contexts, noise=noise)
        sums = {}
        for kind, samplings in SAMPLINGS.items():
            weights = random_weights(small_model(kind))
            sums[kind] = checksum(weights)
            save_file(weights, handed)
            meta.ask("build", kind=kind, sizes={**SIZES, "denoiser_layers": DENOISER_LAYERS}, weights=str(handed))
            for name, sampling in samplings.items():
                options = asdict(sampling) | {"steps": ASKED.get(sampling.steps, sampling.steps)}
                meta.ask("predict", given=str(inputs), taken=str(taken), concepts=CONCEPTS, sampling=options)
                arrays[name] = np.load(taken)
        told = {
            "checksums": sums,
            "parameters": {
                name: meta.ask("build", kind=kind, sizes=sizes)["parameters"]
                for name, (kind, sizes) in PUBLISHED.items()
            },
            "timesteps": {steps: meta.ask("schedule", steps=steps)["timesteps"] for steps in (1, 4, 5, 10, 40)},
            "alphas_cumprod": meta.ask("schedule", steps=1)["alphas_cumprod"],
            "made_with": {"large_concept_model": "fd7db80", "fairseq2": "0.3.0", **meta.versions},
        }
    np.savez_compressed(args.out / "outputs.npz", **arrays)
    (args.out / "outputs.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    total = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{args.out}: {len(arrays)} arrays, {total / 1e3:.0f} kB")


def small_model(kind: str) -> Tower:
    """Ours of the golden files' sizes, without weights: `load_state_dict(…, assign=True)` gives it some."""
    return bare_model(kind, {**SIZES, "denoiser_layers": DENOISER_LAYERS}, LENGTH + CONCEPTS)


if __name__ == "__main__":
    main()
