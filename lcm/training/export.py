"""Export: a training checkpoint in, parts of a bundle out. Knows nothing of training itself."""

import itertools
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lcm.bundle import COMPANION, Bundle
from lcm.bundle_writer import BundleWriter
from lcm.errors import TrainingDataError
from lcm.models.sampler import Sampling
from lcm.space.spoken_language import PART, SpokenLanguageConfig
from lcm.training.checkpoints import each_tensor, exists, read_notes
from lcm.training.data import LANGUAGES
from lcm.training.speech_model import SpeechTraining
from lcm.training.text import TextModel, TextTraining, load_average, tokenizer_id

COMMANDS = "commands.jsonl"
"""In a run's folder: which commands made it"""
LICENSE = "CC-BY-SA-4.0"
"""What the sources of the prepared splits ask of weights that have learnt from them"""


def export_text(checkpoint: Path, tokenizer: Path, folder: Path, languages: Sequence[str] = LANGUAGES) -> str:
    """Write the averaged text weights of a run as `text_encoder` and `text_decoder`; returns the `space_id`.

    Raises:
        TrainingDataError: `tokenizer` is not the one it learnt with.
    """
    state = _loaded(checkpoint)
    if state["tokenizer"] != tokenizer_id(tokenizer.read_bytes()):
        raise TrainingDataError(f"{tokenizer} is not the tokenizer that {checkpoint} learnt with; name its --prepared")
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
    state = _loaded(checkpoint)
    config = SpeechTraining(**state["config"])
    bundle = _of_its_space(folder, state, checkpoint)
    writer = BundleWriter(folder)
    writer.write_part("speech_encoder", asdict(config.encoder()), state["average"], bundle.space_id)
    writer.describe(languages={**bundle.languages, "speech": list(languages)})


def export_lcm(
    run: Path, folder: Path, sampling: Sampling, *, variant: str, report: Callable[[str], None] = lambda _: None
) -> None:
    """Write a run's averaged LCM, with its normaliser, as a part of the bundle whose space it learnt.

    In a companion (a folder BUNDLE-lcms beside the bundle, made where it is missing) its matrices are int8.

    Args:
        run: the run's folder.
        folder: the bundle, or its companion.
        sampling: how the variant draws concepts by itself.
        variant: what the run is to have trained.
        report: told of a run that is not over.

    Raises:
        TrainingDataError: nothing was trained, or another variant, or on the concepts of another space.
        BundleError: the disk is full, or not writable; the bundle is as it was.
    """
    notes = lcm_notes(run)
    if notes["variant"] != variant:
        raise TrainingDataError(
            f"{run} has trained {notes['variant']}, the settings are of {variant}; name the run with --run"
        )
    if (epoch := notes["position"][1]) < (epochs := notes["training"]["epochs"]):
        report(f"{run} is not over: this is what it knows after epoch {epoch} of {epochs}")
    accompanies = folder.name.endswith(COMPANION)
    bundle = _of_its_space(folder.with_name(folder.name.removesuffix(COMPANION)), notes, run)
    config = notes["model"] | {"sampling": asdict(sampling)}
    tensors = dict(each_tensor(run, "average"))
    writer, figures = BundleWriter(folder), ("lcm", variant)
    if accompanies:
        writer.accompany(bundle)
        BundleWriter(bundle.folder).forget(*figures)  # which stand with the space
    writer.write_part(variant, config, tensors, bundle.space_id, figures=figures, int8=accompanies)


def lcm_notes(run: Path) -> dict[str, Any]:
    """What an LCM's run says of itself, as `RunNotes` has it.

    Raises:
        TrainingDataError: nothing was trained.
    """
    if not exists(run):
        raise TrainingDataError(f"{run} holds no checkpoint; train before you export, or name the run with --run")
    return read_notes(run)


def export_spoken_language(checkpoint: Path, folder: Path) -> None:
    """Write a run's head as `spoken_language` of the bundle whose speech encoder it heard with.

    Raises:
        TrainingDataError: it has not heard all that it was to hear, or heard with another encoder.
    """
    state = _loaded(checkpoint)
    bundle = Bundle.open(folder)
    encoder = bundle.part("speech_encoder")
    if state["head"] is None:
        raise TrainingDataError(f"{checkpoint} holds no head yet; let the training come to its end before you export")
    if state["encoder"] != list(encoder.hashes):
        raise TrainingDataError(
            f"{checkpoint} has heard with another speech encoder than that of {folder}; train with --bundle {folder}"
        )
    config = SpokenLanguageConfig(bundle.languages["speech"], encoder.config["phones"] - 1, state["encoder"])
    figures = ["speech", PART]  # nothing else in a bundle asks the head
    BundleWriter(folder).write_part(PART, asdict(config), state["head"], bundle.space_id, figures=figures)


def _loaded(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.exists():
        raise TrainingDataError(f"{checkpoint} is missing; train before you export, or name the run with --run")
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return state


def _of_its_space(folder: Path, state: Mapping[str, Any], checkpoint: Path) -> Bundle:
    bundle = Bundle.open(folder)
    if state["space_id"] != bundle.space_id:
        raise TrainingDataError(
            f"{checkpoint} learnt space {state['space_id'] or '(none)'}, {folder} holds {bundle.space_id}; "
            f"train with --bundle {folder}"
        )
    return bundle


def note_command(run: Path, command: Sequence[str], first: int, last: int) -> None:
    """Note beside a run's checkpoint which command made its steps `first` to `last`, and of which commit.

    Raises:
        TrainingDataError: the disk is full, or not writable.
    """
    line = {"command": " ".join(command), "commit": _commit(), "from": first, "to": last}
    try:
        with (run / COMMANDS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise TrainingDataError(
            f"{run / COMMANDS} could not be written ({error}): make room and start the same command again"
        ) from error


def making(run: Path) -> list[str]:
    """The commands of a run, in order, each with its steps and the commits of the code that ran."""
    if not (run / COMMANDS).exists():
        return []
    noted = [json.loads(line) for line in (run / COMMANDS).read_text(encoding="utf-8").splitlines()]
    told = []
    for command, pieces in itertools.groupby(noted, key=lambda piece: str(piece["command"])):
        parts = list(pieces)
        commits = ", ".join(dict.fromkeys(piece["commit"][:7] for piece in parts))
        told.append(f"{command}  # steps {parts[0]['from']} to {parts[-1]['to']}, at {commits}")
    return told


def sources(data: Path) -> list[dict[str, str]]:
    """Where the prepared splits come from, file by file, with licences.

    Raises:
        TrainingDataError: the data does not say.
    """
    kept = ("file", "repository", "commit", "licence")
    try:
        head, *lines = (row.split("\t") for row in (data / "SOURCES.tsv").read_text(encoding="utf-8").splitlines())
        return [{name: line[head.index(name)] for name in kept} for line in lines]
    except (OSError, ValueError, IndexError) as error:
        raise TrainingDataError(f"{data / 'SOURCES.tsv'} must list {', '.join(kept)} of all data ({error})") from error


def describe_making(
    folder: Path,
    part: str,
    learnt: Sequence[Mapping[str, str]] | Mapping[str, Any],
    run: Path,
    command: Sequence[str],
) -> None:
    """Note in `bundle.json` what the weights were made from and how: data with licences, commands and commit.

    Args:
        folder: the bundle, or its companion.
        part: which part was made.
        learnt: the `sources` of the prepared splits; or somebody's own corpus, whose licence is not ours to give.
        run: the run's folder.
        command: what has exported it.
    """
    writer = BundleWriter(folder)
    training = writer.description.get("training", {"commands": []})
    entries = training.get("data", [])
    shared = [entry for entry in entries if "part" not in entry]
    own = [entry for entry in entries if entry.get("part", part) != part]
    if isinstance(learnt, Mapping):
        own.append({"part": part, **learnt})
    else:
        shared = list(learnt)
        writer.description["license"] = LICENSE
    commands = [*making(run), f"{' '.join(command)}  # at {_commit()[:7]}"]
    made_anew = {_settings_file(new) for new in commands}
    earlier = [old for old in training["commands"] if _settings_file(old) not in made_anew]
    training |= {"data": shared + own, "commit": _commit(), "commands": earlier + commands}
    writer.describe(training=training)


def _settings_file(command: str) -> str:
    """Which part a command is about."""
    return next((word for word in command.split() if word.endswith(".yaml")), command)


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"
