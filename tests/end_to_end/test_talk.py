"""`noema talk` with a real loudspeaker and a real microphone that hears it: a PulseAudio null sink and its monitor."""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.audio.conftest import sound_devices

__all__ = ["sound_devices"]
ROOT = Path(__file__).parents[2]
SENTENCES = 2
"""in the recording"""
TRIES = 3


class Talk:
    """A running `noema talk` and what it has printed."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.said = ""
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)

    def wait_for(self, seen: Callable[[str], bool], timeout_s: float) -> bool:
        """Reads until the condition holds; False when it does not in time, or the process ended."""
        deadline = time.monotonic() + timeout_s
        while not seen(self.said) and (left := deadline - time.monotonic()) > 0:
            if self._selector.select(left):
                piece = os.read(self._fd, 65_536)
                if not piece:
                    break
                self.said += piece.decode()
        return seen(self.said)


@contextmanager
def talking(small_bundle: Path, *options: str) -> Iterator[Talk]:
    command = [sys.executable, "-m", "agent", "talk", "--bundle", str(small_bundle), "--device", "cpu", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield Talk(process)
        finally:
            process.kill()


def play(path: Path) -> None:
    """Someone speaks in the room: PulseAudio's own player, so that only the agent's sound is on trial."""
    subprocess.run(["paplay", str(path)], check=True, timeout=60)


@pytest.mark.slow
def test_talk_answers_what_it_hears_and_not_itself(
    sound_devices: None,
    small_bundle: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if shutil.which("paplay") is None:
        pytest.skip("paplay missing: apt install pulseaudio-utils")
    monkeypatch.setenv("NOEMA_SESSIONS", str(tmp_path))
    with talking(small_bundle, "--record") as talk:
        assert talk.wait_for(lambda said: "Listening" in said, 60), talk.said
        plays = 0
        while "first audio" not in talk.said and plays < TRIES:  # a starved sound server may swallow a sentence
            play(recording)
            plays += 1
            talk.wait_for(lambda said: "first audio" in said, 20)
        assert "first audio" in talk.said, talk.said
        # Its own reply sounds in the same room: were it heard, more turns would follow within seconds.
        spoken = SENTENCES * plays
        talk.wait_for(lambda said: said.count("first audio") > spoken, 6)
        assert talk.said.count("first audio") <= spoken, talk.said
        talk.process.send_signal(signal.SIGINT)
        assert talk.process.wait(timeout=30) == 130
        talk.wait_for(lambda _: False, 0.2)
        assert "Traceback" not in talk.said
    [session] = tmp_path.iterdir()
    assert (session / "audio.flac").exists()
    replayed = subprocess.run(
        [sys.executable, "-m", "agent", "replay", str(session)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert replayed.returncode == 0, replayed.stderr
    assert "events, as in" in replayed.stdout
