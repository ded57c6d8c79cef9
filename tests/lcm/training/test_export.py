"""What a bundle says of its making, and what is derived from splits."""

import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.errors import BackendError, BundleError, TrainingDataError
from lcm.models.sampler import Sampling
from lcm.training.checkpoints import write_tensors
from lcm.training.curves import draw_curves
from lcm.training.data import made_of
from lcm.training.export import describe_making, export_lcm, making, note_command, sources


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    BundleWriter(tmp_path / "b").write_space(b"tokens", ["eng"], {"concept_dim": 2}, {"weight": torch.zeros(2)})
    return tmp_path / "b"


def test_a_bundle_tells_every_command_that_made_it_and_how_far_it_came(bundle: Path, tmp_path: Path) -> None:
    listed = "file\trepository\tcommit\tlicence\nx.xz\thttps://example.org\t123\tCC0\n"
    (tmp_path / "SOURCES.tsv").write_text(listed)
    begin, finish = ["train", "a.yaml"], ["train", "a.yaml", "--finish"]
    for first, last, words in ((0, 10, begin), (10, 25, begin), (25, 30, finish)):
        note_command(tmp_path, words, first, last)
    told = [command.rpartition(", at ")[0] for command in making(tmp_path)]
    assert told == ["train a.yaml  # steps 0 to 25", "train a.yaml --finish  # steps 25 to 30"]
    assert making(tmp_path / "none") == []
    BundleWriter(bundle).describe(training={"commands": ["train b.yaml", "train a.yaml --an-earlier-try"]})
    for _ in range(2):  # an export repeated is told once
        describe_making(bundle, "a", sources(tmp_path), tmp_path, ["train", "a.yaml", "--export"])
    description = Bundle.open(bundle).description
    training = description["training"]
    assert [command.split("  #")[0] for command in training["commands"]] == [
        "train b.yaml", "train a.yaml", "train a.yaml --finish", "train a.yaml --export"
    ]  # fmt: skip
    assert training["data"] == [
        {"file": "x.xz", "repository": "https://example.org", "commit": "123", "licence": "CC0"}
    ]
    assert description["license"] == "CC-BY-SA-4.0"


def test_what_a_part_has_learnt_from_stands_beside_what_the_others_have(bundle: Path, tmp_path: Path) -> None:
    def told(part: str, *learnt: dict[str, str] | list[dict[str, str]]) -> list[object]:
        for each in learnt:
            describe_making(bundle, part, each, tmp_path, ["train", f"{part}.yaml"])
        return list(Bundle.open(bundle).description["training"]["data"])

    ours, mine, other = [{"file": "x.xz"}], {"corpus": "mine"}, {"corpus": "other"}
    assert told("base", other, mine) == [{"part": "base", "corpus": "mine"}]
    assert "license" not in Bundle.open(bundle).description
    assert told("text", ours, ours) == [{"file": "x.xz"}, {"part": "base", "corpus": "mine"}]
    assert told("planning", other) == [
        {"file": "x.xz"}, {"part": "base", "corpus": "mine"}, {"part": "planning", "corpus": "other"}
    ]  # fmt: skip
    assert told("base", ours) == [{"file": "x.xz"}, {"part": "planning", "corpus": "other"}]


@contextmanager
def full_disk() -> Iterator[None]:
    """Files of more than 100 bytes find no room, and be it the one that pytest writes to: enter it for one call."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_command_that_finds_no_room_says_so(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(TrainingDataError, match=r"commands.jsonl could not be written \(.*\): make room"):
        note_command(tmp_path, ["train", "a" * 200], 0, 1)


def test_an_lcm_that_finds_no_room_says_so(bundle: Path, tmp_path: Path) -> None:
    notes = {
        "variant": "base", "space_id": Bundle.open(bundle).space_id, "position": [1, 1, 0], "training": {"epochs": 1},
        "model": {},
    }  # fmt: skip
    write_tensors(tmp_path, {"average.weight": torch.zeros(100)}, notes)
    with full_disk(), pytest.raises(BundleError, match=r"b could not be written \(.*\); the bundle is as it was"):
        export_lcm(tmp_path, bundle, Sampling(), variant="base")


def test_a_new_model_forgets_its_own_figures_alone_in_a_companion_too(bundle: Path, tmp_path: Path) -> None:
    space_id = Bundle.open(bundle).space_id
    for folder, variant in ((bundle, "base"), (bundle.with_name(bundle.name + "-lcms"), "one_step")):
        run = tmp_path / f"{variant} run"
        run.mkdir()
        BundleWriter(bundle).describe(metrics={"text": 1, "lcm": {"base": 2, "one_step": 3, "planning": 4}})
        notes = {
            "variant": variant, "space_id": space_id, "position": [1, 1, 0], "training": {"epochs": 1}, "model": {},
        }  # fmt: skip
        write_tensors(run, {"average.weight": torch.zeros(100)}, notes)
        export_lcm(run, folder, Sampling(), variant=variant)
        left = Bundle.open(bundle).description["metrics"]
        assert left["text"] == 1
        assert variant not in left["lcm"]
        assert len(left["lcm"]) == 2


def test_curves_without_matplotlib_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n', encoding="utf-8")
    with pytest.raises(BackendError, match=r"drawn by matplotlib: pip install -e '.\[train\]'"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


def test_new_weights_forget_the_figures_of_the_old(bundle: Path) -> None:
    BundleWriter(bundle).describe(metrics={"text": 1})
    assert "metrics" in Bundle.open(bundle).description
    BundleWriter(bundle).write_part("base", {}, {"weight": torch.zeros(2)}, Bundle.open(bundle).space_id)
    assert "metrics" not in Bundle.open(bundle).description


def test_a_part_that_bears_on_few_figures_forgets_those_alone(bundle: Path) -> None:
    measured = {"text": 1, "speech": {"real": 2, "spoken_language": 3}}
    BundleWriter(bundle).describe(metrics=measured)
    space_id = Bundle.open(bundle).space_id
    for _ in range(2):  # the second time there is nothing to forget
        figures = ["speech", "spoken_language"]
        BundleWriter(bundle).write_part("head", {}, {"weight": torch.zeros(2)}, space_id, figures=figures)
        assert Bundle.open(bundle).description["metrics"] == {"text": 1, "speech": {"real": 2}}
    BundleWriter(bundle).write_part("speech_encoder", {}, {"weight": torch.zeros(2)}, space_id)
    assert "metrics" not in Bundle.open(bundle).description
    BundleWriter(bundle).write_part("head", {}, {"weight": torch.zeros(2)}, space_id, figures=figures)
    assert "metrics" not in Bundle.open(bundle).description


def test_what_is_derived_belongs_to_its_splits(tmp_path: Path) -> None:
    prepared, stores = tmp_path / "prepared", tmp_path / "stores"
    prepared.mkdir()
    with pytest.raises(TrainingDataError, match="prepare_data"):
        made_of(stores, prepared)
    (prepared / "manifest.json").write_text(json.dumps({"speech.train": 1}))
    made_of(stores, prepared)
    made_of(stores, prepared)
    (prepared / "manifest.json").write_text(json.dumps({"speech.train": 2}))
    with pytest.raises(TrainingDataError, match="remove it"):
        made_of(stores, prepared)
