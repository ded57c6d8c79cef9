"""Export: a training checkpoint in, parts of a bundle out. Knows nothing of training itself."""

import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from lcm.bundle import Bundle, BundleWriter
from lcm.errors import TrainingDataError
from lcm.training.data import LANGUAGES
from lcm.training.speech import SpeechModel, SpeechTraining
from lcm.training.text import TextModel, TextTraining, load_average


def export_text(checkpoint: Path, tokenizer: Path, folder: Path, languages: Sequence[str] = LANGUAGES) -> str:
    """Write the averaged text weights of a run as `text_encoder` and `text_decoder`; returns the `space_id`."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = TextTraining(**state["config"])
    model = TextModel(config)
    load_average(model, state["average"])
    writer = BundleWriter(folder)
    space_id = writer.write_space(
        tokenizer.read_bytes(), list(languages), asdict(config.encoder()), model.encoder.state_dict()
    )
    decoder = {k: v for k, v in model.decoder.state_dict().items() if k != "embed.weight"}
    writer.write_part("text_decoder", asdict(config.decoder()), decoder, space_id)
    return space_id


def export_speech(checkpoint: Path, folder: Path, languages: Sequence[str] = LANGUAGES) -> None:
    """Write the averaged speech encoder of a run as `speech_encoder` of the bundle whose space it learnt.

    Raises:
        TrainingDataError: it learnt phones only, or the concepts of another space.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = SpeechTraining(**state["config"])
    model = SpeechModel(config)
    model.load_state_dict(state["average"])
    bundle = Bundle.open(folder)
    if state["space_id"] != bundle.space_id:
        raise TrainingDataError(
            f"{checkpoint} learnt space {state['space_id'] or '(none)'}, {folder} holds {bundle.space_id}; "
            f"train some more with --bundle {folder}"
        )
    writer = BundleWriter(folder)
    writer.write_part("speech_encoder", asdict(config.encoder()), model.encoder.state_dict(), bundle.space_id)
    writer.describe(languages={**bundle.languages, "speech": list(languages)})


def describe_making(folder: Path, data: Path, command: Sequence[str]) -> None:
    """Note in `bundle.json` what the weights were made from and how: data with licences, command and commit.

    Raises:
        TrainingDataError: the data does not say where it comes from.
    """
    kept = ("file", "repository", "commit", "licence")
    try:
        head, *lines = (row.split("\t") for row in (data / "SOURCES.tsv").read_text(encoding="utf-8").splitlines())
        sources = [{name: line[head.index(name)] for name in kept} for line in lines]
    except (OSError, ValueError, IndexError) as error:
        raise TrainingDataError(f"{data / 'SOURCES.tsv'} must list {', '.join(kept)} of all data ({error})") from error
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    writer = BundleWriter(folder)
    training = writer.description.get("training", {"commands": []})
    training |= {
        "data": sources,
        "commit": commit.stdout.strip() or "unknown",
        "commands": [*(c for c in training["commands"] if c != " ".join(command)), " ".join(command)],
    }
    writer.describe(license="CC-BY-SA-4.0", training=training)
