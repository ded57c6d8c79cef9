"""Figures of spoken language identification: who is right, how often, at which length; kept beside the others."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.space import ConceptSpace
from lcm.training.evaluate_speech import ClipSet
from lcm.training.evaluate_spoken_language import identified
from lcm.training.recordings import Recordings, write_recordings
from scripts.evaluate import keep
from tests.lcm.space.test_spoken_language import write_head


@pytest.fixture(scope="module")
def space(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ConceptSpace:
    """The small bundle with a random head."""
    folder = Path(shutil.copytree(small_bundle, tmp_path_factory.mktemp("headed") / "bundle"))
    write_head(folder)
    return ConceptSpace.load(folder, "cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Noise of one, three and five seconds, by two speakers."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("stores") / "speech.test"
    about = {"language": "fra", "text": "x", "corpus": "noise"}
    seconds = (1, 3, 3, 5)
    write_recordings(
        path,
        (
            (0.1 * rng.standard_normal(16_000 * n, dtype=np.float32), about | {"speaker": str(number % 2)})
            for number, n in enumerate(seconds)
        ),
    )
    return Recordings(path)


def test_figures_are_of_what_was_identified_and_add_up(space: ConceptSpace, clips: Recordings) -> None:
    sets = {tag: ClipSet("real/noise", tag, clips, [0, 1, 2, 3], ["x"] * 4, []) for tag in ("eng", "fra", "spa", "deu")}
    figures = {tag: identified(space, of_set) for tag, of_set in sets.items()}
    assert sum(scores["accuracy"] for scores in figures.values()) == pytest.approx(100)
    french = figures["fra"]
    assert (french["n"], french["speakers"], sum(french["taken_for"].values())) == (4, 2, 4)
    assert french["accuracy"] == 25 * french["taken_for"].get("fra", 0)
    assert [french[name]["n"] for name in ("under_2_s", "2_to_4_s", "over_4_s")] == [1, 2, 1]
    by_length = sum(french[name]["n"] * french[name]["accuracy"] for name in ("under_2_s", "2_to_4_s", "over_4_s"))
    assert by_length / 4 == pytest.approx(french["accuracy"])


def test_lengths_are_of_what_the_segmenter_left(space: ConceptSpace, clips: Recordings) -> None:
    of_set = ClipSet("real/noise", "fra", clips, [0, 1, 2, 3], ["x"] * 4, [])
    figures = identified(space, of_set, cut=lambda samples: samples[:16_000])
    assert figures["under_2_s"]["n"] == 4
    assert "over_4_s" not in figures


def test_figures_measured_alone_stand_beside_those_measured_before(small_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    known = {"text": 1, "speech": {"real": 2, "spoken_language": 0}, "baselines": {"speech": 4}}
    BundleWriter(folder).describe(metrics=known)
    keep(Bundle.open(folder), {"speech": {"spoken_language": 3}, "baselines": {}})
    kept = {"text": 1, "speech": {"real": 2, "spoken_language": 3}, "baselines": {"speech": 4}}
    assert Bundle.open(folder).description["metrics"] == kept
