"""What tests of the web page share: `noema serve` as a process of its own, and its page in a browser."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio.files import write_audio
from audio.frames import VOICE_RATE
from audio.resample import resample
from audio.voice import Voice

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 30_000
EXPECTED = ("net::", "503", "Cross-Origin-Opener-Policy")
"""A server that is not there, or not ready; a page without HTTPS"""
_START_S = 90.0
_MICROPHONE_RATE = 48_000


class Served:
    """A running `noema serve`."""

    def __init__(self, store: Path, port: int = 0, *options: str) -> None:
        self.store = store
        environment = {**os.environ, "NOEMA_STORE": str(store), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "agent", "serve", "--device", "cpu", "--port", str(port), *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self.url = self._address()
        except BaseException:
            self.kill()
            raise

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _address(self) -> str:
        assert self.process.stdout is not None
        late = threading.Timer(_START_S, self.process.kill)  # then there is no more to read
        late.start()
        try:
            for line in self.process.stdout:
                if "http" in line:
                    return line[line.index("http") :].strip()
            raise AssertionError(f"no server: it ended with {self.process.wait()}")
        finally:
            late.cancel()

    def kill(self) -> None:
        """As a machine that loses power: nothing is tidied up."""
        self.process.kill()
        self._end()

    def stop(self) -> None:
        """As an operator does. One that was killed stays so."""
        self.process.send_signal(signal.SIGTERM)
        self._end()

    def _end(self) -> None:
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def served(store: Path, *options: str, port: int = 0) -> Iterator[Served]:
    """A server of the embedded models, until the end."""
    server = Served(store, port, *options)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def opened(browser: "Browser", url: str, **options: Any) -> Iterator["Page"]:
    """The page in a window of its own. It must not complain."""
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(url)
        page.wait_for_selector("#connection[data-state=open]", state="attached")
        yield page
        unexpected = [each for each in complaints if not any(part in each for part in EXPECTED)]
        assert not unexpected, unexpected


def write_speech(path: Path, text: str, language: str = "eng") -> Path:
    """A wav that says something after a second of near silence, as a microphone would give it."""

    async def spoken() -> np.ndarray:
        async with Voice() as voice:
            return resample(await voice.synthesize(text, language), VOICE_RATE, _MICROPHONE_RATE)

    speech = asyncio.run(spoken()) * 0.5
    quiet = np.random.default_rng(0).normal(0, 0.0005, _MICROPHONE_RATE).astype(np.float32)
    write_audio(path, np.concatenate([quiet, speech, quiet, quiet]), _MICROPHONE_RATE)
    return path
