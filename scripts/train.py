"""Train one part of a bundle from a config file; resumes where it was.

    python -m scripts.train configs/training/text_mini.yaml
    python -m scripts.train configs/training/text_mini.yaml --finish 2500     # linear decay over the last 2,500 steps
    python -m scripts.train configs/training/text_mini.yaml --export lcm/bundles/mini
    python -m scripts.train configs/training/speech_mini.yaml --bundle lcm/bundles/mini
    python -m scripts.train configs/training/spoken_language_mini.yaml --bundle lcm/bundles/mini
    python -m scripts.train configs/training/base_mini.yaml --bundle lcm/bundles/mini
    python -m scripts.train configs/training/bank_mini.yaml --export lcm/bundles/mini
    python -m scripts.train configs/training/judge_mini.yaml --bundle lcm/bundles/mini     # measures; in no bundle

In this order: the text space first; speech and LCM learn its concepts and mean nothing without it, and which language
is spoken is learnt from the phones of the finished speech encoder. Ctrl-C and SIGTERM save and stop, with exit code
130; before the first step there is nothing to save, and what is prepared stays. LCMs train in several processes too, a
GPU each where there are any (the lone -- keeps torchrun from taking --run for its own):

    torchrun --nproc-per-node=8 -m -- scripts.train configs/training/two_tower_mini.yaml --bundle lcm/bundles/mini

Metrics go to RUN/metrics.jsonl, curves to RUN/curves.png.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

if __name__ == "__main__":  # torch takes seconds to import: until then Ctrl-C ends the process, and nothing is printed
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch
from tqdm import tqdm

from agent.errors import INTERRUPTED
from configs.loader import ConfigError, Settings, load_config
from lcm.bundle import Bundle
from lcm.engine import Engine
from lcm.errors import BackendError, LcmError, TrainingDataError
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable, concept_table
from lcm.training.curves import draw_curves
from lcm.training.data import DEFAULT_DATA, DEFAULT_PREPARED, DEFAULT_RUNS, check_splits
from lcm.training.export import (
    describe_making,
    export_lcm,
    export_speech,
    export_spoken_language,
    export_text,
    lcm_notes,
    note_command,
    sources,
)
from lcm.training.judge_trainer import JudgeTrainer, JudgeTraining
from lcm.training.lcm_variants import (
    BaseTraining,
    DecodedTraining,
    DistilledTraining,
    OneStepTraining,
    OneTowerTraining,
    PlanningTraining,
    QuantizedTraining,
    TwoTowerTraining,
    VariantTraining,
    lcm_trainer,
)
from lcm.training.processes import ALONE, Processes
from lcm.training.recordings import prepare_flite, prepare_recordings
from lcm.training.replies import BankBuilding, build_bank
from lcm.training.speech import SpeechTrainer, SpeechTraining, Teacher
from lcm.training.spoken_language import SpokenLanguageTrainer, SpokenLanguageTraining
from lcm.training.text import TextTrainer, TextTraining


class TrainingFile(Settings):
    """What to train; exactly one section."""

    text: TextTraining | None = None
    speech: SpeechTraining | None = None
    spoken_language: SpokenLanguageTraining | None = None
    base: BaseTraining | None = None
    one_tower: OneTowerTraining | None = None
    planning: PlanningTraining | None = None
    two_tower: TwoTowerTraining | None = None
    one_step: OneStepTraining | None = None
    quantized: QuantizedTraining | None = None
    decoded: DecodedTraining | None = None
    distilled: DistilledTraining | None = None
    bank: BankBuilding | None = None
    judge: JudgeTraining | None = None

    @property
    def lcm(self) -> VariantTraining | None:
        """Which Large Concept Model it is, if it is one."""
        own = (
            self.base, self.decoded, self.one_tower, self.planning, self.two_tower, self.distilled, self.one_step,
            self.quantized,
        )  # fmt: skip
        return next((section for section in own if section), None)


class Trainer(Protocol):
    """A run that goes on until it is over or stopped."""

    step: int

    @property
    def steps(self) -> int:
        """How many there will be, as far as is known."""
        ...

    def train(self) -> Iterator[dict[str, float]]:
        """Train; yields after every step, metrics now and then."""
        ...

    def save(self) -> None:
        """Write the checkpoint."""
        ...


def main() -> int:
    """Exit code 0; 2 for what cannot be used; 130 stopped, by Ctrl-C before training or, saved, while it trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a file of configs/training")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="raw training data (%(default)s)")
    parser.add_argument("--prepared", type=Path, default=DEFAULT_PREPARED, help="its splits (%(default)s)")
    parser.add_argument("--run", type=Path, help="checkpoints and metrics (runs/NAME of the config)")
    parser.add_argument("--bundle", help="whose space speech and LCM learn; speech without it learns phones only")
    parser.add_argument("--concepts", type=Path, help="LCM: what prepare_data encoded (else dialogues and stories)")
    parser.add_argument("--finish", type=int, metavar="N", help="text, speech: linear decay over N more steps")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the weights to a bundle, train nothing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        return run(arguments)
    except (LcmError, ConfigError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it trains, `train` takes the signal
        kept = "before training; encoded concepts, measured fragility and checkpoints stay: the same command goes on"
        print(f"train: stopped {'exporting; export again' if arguments.export else kept}", file=sys.stderr)
        return INTERRUPTED


def run(arguments: argparse.Namespace) -> int:
    """Train, or export."""
    config = load_config(arguments.config, TrainingFile)
    if len(config.model_fields_set) != 1:
        raise ConfigError(f"{arguments.config}: give exactly one section: {', '.join(TrainingFile.model_fields)}")
    folder = arguments.run or DEFAULT_RUNS / arguments.config.stem
    if arguments.export:
        export(config, folder, arguments)
        return 0
    if arguments.finish and not (config.text or config.speech):
        raise ConfigError(f"{arguments.config}: --finish is for text and speech; the others end by themselves")
    if not arguments.concepts:
        check_splits(arguments.prepared)
    processes = Processes.joined(arguments.device)
    if processes.count > 1 and not config.lcm:
        raise ConfigError(f"{arguments.config}: torchrun is for LCMs; everything else is trained by one process")
    trainer = trainer_for(config, folder, arguments, processes)
    first = trainer.step
    stopped = train(trainer, processes)
    trainer.save()  # not after an error: the last checkpoint is what to go on from

    def note() -> None:
        note_command(folder, _command(), first, trainer.step)
        try:
            if (folder / "metrics.jsonl").exists():
                draw_curves(folder / "metrics.jsonl", folder / "curves.png")
        except BackendError as error:
            _report(f"note: {folder / 'curves.png'} is not drawn; {error}")
        if stopped:
            same = "the same command without --finish" if arguments.finish else "the same command"
            _report(f"train: stopped at step {trainer.step}; saved; {same} goes on where it was")

    processes.by_first(note)
    return INTERRUPTED if stopped else 0


def trainer_for(
    config: TrainingFile, folder: Path, arguments: argparse.Namespace, processes: Processes = ALONE
) -> Trainer:
    """The trainer of the config's section, resumed if its folder holds a checkpoint."""
    prepared, device = arguments.prepared, arguments.device
    if config.text:
        text = TextTrainer(config.text, prepared, folder, device)
        if arguments.finish:
            text.finish_in(arguments.finish)
        return text
    if config.spoken_language:
        bundle = Bundle.open(_needed(arguments.bundle))
        stores = _speech_stores(prepared, arguments.data)
        return SpokenLanguageTrainer(config.spoken_language, prepared, stores, folder, bundle, device)
    if config.speech:
        stores = _speech_stores(prepared, arguments.data)
        teacher = _teacher(arguments.bundle, device) if arguments.bundle else None
        speech = SpeechTrainer(config.speech, prepared, stores, folder, teacher, device)
        if arguments.finish:
            speech.finish_in(arguments.finish)
        return speech
    if config.lcm:
        table = _concepts(arguments, processes)
        return lcm_trainer(config.lcm, table, folder, processes, arguments.bundle, _report)
    if config.judge:
        space = ConceptSpace.load(_needed(arguments.bundle), device)
        table = concept_table(space, prepared, DEFAULT_RUNS / "concepts", _report)
        return JudgeTrainer(config.judge, table, space.tokenizer, folder, device)
    raise ConfigError(f"{arguments.config}: a bank is built, not trained; give --export FOLDER")


def _speech_stores(prepared: Path, data: Path) -> Path:
    """What training hears, made where it is missing."""
    stores = DEFAULT_RUNS / "speech_data"
    prepare_recordings(prepared, data, stores)
    try:
        prepare_flite(prepared, stores)
    except TrainingDataError as error:
        _report(f"no voices of flite ({error}): one English voice in twenty will be espeak-ng's instead")
    return stores


def export(config: TrainingFile, folder: Path, arguments: argparse.Namespace) -> None:
    """Write what the run has learnt into the bundle `arguments.export`."""
    checkpoint, bundle = folder / "checkpoint.pt", arguments.export
    if config.judge:
        raise ConfigError("the judge measures and is part of no bundle; leave out --export")
    corpus = lcm_notes(folder).get("corpus") if config.lcm else None
    learnt = corpus or sources(arguments.data)  # before anything is written
    if config.text:
        export_text(checkpoint, arguments.prepared / "tokenizer.model", bundle)
    elif config.speech:
        export_speech(checkpoint, bundle)
    elif config.spoken_language:
        export_spoken_language(checkpoint, bundle)
    elif config.lcm:
        export_lcm(folder, bundle, config.lcm.sampling, variant=config.lcm.variant, report=_report)
    elif config.bank:
        space = ConceptSpace.load(bundle, arguments.device)
        engine = Engine.load(bundle, variant="base", device=arguments.device, space=space)
        table = concept_table(space, arguments.prepared, DEFAULT_RUNS / "concepts", _report)
        build_bank(config.bank, space, engine, table, arguments.prepared, bundle, _report)
    part = config.lcm.variant if config.lcm else next(iter(config.model_fields_set))
    describe_making(bundle, part, learnt, folder, _command())
    opened = Bundle.open(bundle)
    size = sum(size for size, _ in opened.description["files"].values())
    print(f"{bundle}: {', '.join(opened.parts)}; {size / 1e6:.1f} MB; space {opened.space_id}")


def train(trainer: Trainer, processes: Processes = ALONE) -> bool:
    """Until the last step, or until any process gets Ctrl-C or SIGTERM: then the step under way is everybody's last.

    Gives whether it was stopped.
    """
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    with tqdm(
        total=trainer.steps, initial=trainer.step, unit="step", dynamic_ncols=True, mininterval=1,
        disable=not processes.first,
    ) as bar:  # fmt: skip
        for metrics in trainer.train():
            bar.total = trainer.steps
            bar.update(trainer.step - bar.n)
            if "loss" in metrics:
                bar.set_postfix(loss=metrics["loss"])
            if processes.agreed(stopping):
                return trainer.step < trainer.steps  # the last step's evaluation was all there was to stop
    return False


def _teacher(bundle: str, device: str) -> Teacher:
    space = ConceptSpace.load(bundle, device)
    return Teacher(space.encode_text, space.space_id, space.bundle.part("text_encoder").tensors())


def _concepts(arguments: argparse.Namespace, processes: Processes) -> ConceptTable:
    """What an LCM learns from: a corpus of one's own, or the dialogues and stories, encoded here if need be."""
    if arguments.concepts:
        space_id = Bundle.open(arguments.bundle).space_id if arguments.bundle else None
        return ConceptTable.open(arguments.concepts, space_id)
    bundle, folder = _needed(arguments.bundle), DEFAULT_RUNS / "concepts"

    def encode() -> None:
        concept_table(ConceptSpace.load(bundle, str(processes.device)), arguments.prepared, folder, _report)

    processes.by_first(encode)
    return ConceptTable.open(folder, Bundle.open(bundle).space_id)


def _command() -> list[str]:
    return ["python", "-m", "scripts.train", *sys.argv[1:]]


def _needed(bundle: str | None) -> str:
    if bundle is None:
        raise ConfigError("this learns from a bundle's concepts or phones; give --bundle FOLDER")
    return bundle


def _report(line: str) -> None:
    tqdm.write(line, file=sys.stderr)  # above the bar, where there is one


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
