"""Train one part of a bundle from a config file; resumes where it was.

    python -m scripts.train configs/training/text_mini.yaml
    python -m scripts.train configs/training/text_mini.yaml --finish 2500     # linear decay over the last 2,500 steps
    python -m scripts.train configs/training/text_mini.yaml --export runs/bundle

Ctrl-C saves and stops. Metrics go to RUN/metrics.jsonl, curves to RUN/curves.png.
"""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

from configs.loader import ConfigError, Settings, load_config
from lcm.errors import LcmError
from lcm.training.curves import draw_curves
from lcm.training.data import DEFAULT_PREPARED
from lcm.training.export import export_text
from lcm.training.text import TextTrainer, TextTraining


class TrainingFile(Settings):
    """What to train; exactly one section."""

    text: TextTraining | None = None


def main() -> int:
    """Exit code 0, also when stopped by Ctrl-C after saving; 2 for a config or data that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a file of configs/training")
    parser.add_argument("--data", type=Path, default=DEFAULT_PREPARED, help="prepared splits (%(default)s)")
    parser.add_argument("--run", type=Path, help="checkpoints and metrics (runs/NAME of the config)")
    parser.add_argument("--finish", type=int, metavar="N", help="end with a linear decay over N more steps")
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write the averaged weights to a bundle, train nothing"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    try:
        return run(arguments)
    except (LcmError, ConfigError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2


def run(arguments: argparse.Namespace) -> int:
    """Train, or export."""
    config = load_config(arguments.config, TrainingFile).text
    if config is None:
        raise ConfigError(f"{arguments.config}: no section to train; give `text:`")
    folder = arguments.run or Path("runs") / arguments.config.stem
    if arguments.export:
        space_id = export_text(folder / "checkpoint.pt", arguments.data / "tokenizer.model", arguments.export)
        print(f"space {space_id} written to {arguments.export}")
        return 0
    trainer = TextTrainer(config, arguments.data, folder, arguments.device)
    if arguments.finish:
        trainer.finish_in(arguments.finish)
    _train(trainer)
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    return 0


def _train(trainer: TextTrainer) -> None:
    """Until the last step, or until the first Ctrl-C or SIGTERM: then save after the step under way."""
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    with tqdm(total=trainer.config.steps, initial=trainer.step, unit="step", dynamic_ncols=True) as bar:
        for metrics in trainer.train():
            bar.update(trainer.step - bar.n)
            if metrics:
                bar.set_postfix({k: metrics[k] for k in ("loss", "pairs_per_second") if k in metrics})
            if stopping:
                break
    trainer.save()


if __name__ == "__main__":
    sys.exit(main())
