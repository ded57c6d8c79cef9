"""What tests share: a user who has nothing yet, a small bundle of the real modules, and a recording."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audio.files import write_audio
from audio.frames import VOICE_RATE
from audio.resample import resample
from audio.voice import Voice


@pytest.fixture(scope="session", autouse=True)
def nobodys_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps tests, and every process they start, from the developer's own data: a server deletes old recordings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        for name in ("NOEMA_SESSIONS", "NOEMA_STORE", "NOEMA_TOKEN"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small, randomly initialised bundle."""
    from tests.small_bundle import write_small_bundle

    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sentences with a pause between them, 16 kHz FLAC, about five seconds."""
    path = tmp_path_factory.mktemp("recordings") / "two sentences.flac"
    spoken = asyncio.run(_spoken(["The cat is hungry.", "Where is the station?"]))
    quiet = np.random.default_rng(0).normal(0, 0.0005, 16_000).astype(np.float32)
    write_audio(path, np.concatenate([quiet[:8000], spoken[0], quiet, spoken[1], quiet]), 16_000)
    return path


async def _spoken(texts: list[str]) -> list[np.ndarray]:
    async with Voice() as voice:
        return [resample(await voice.synthesize(text, "eng"), VOICE_RATE, 16_000) for text in texts]
