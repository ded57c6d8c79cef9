"""`noema talk --url`: a real loudspeaker, a real microphone that hears it, and a server in another process."""

import asyncio
import base64
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.client.remote_conversation import RemoteConversation
from agent.commands.talk_elsewhere import Talk
from agent.loudspeaker import Loudspeaker
from agent.metrics import Metrics
from agent.terminal import Screen
from audio.playback import Playback
from tests.agent.server.running import eventually
from tests.audio.conftest import sound_devices
from tests.end_to_end.served_page import Served, served
from tests.end_to_end.test_listen import noema

__all__ = ["sound_devices"]
SENTENCES = 2
"""in the recording"""
TRIES = 3


@pytest.fixture(scope="module")
def server(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("store") / "sessions.sqlite", "--bundle", str(small_bundle)) as running:
        yield running


@pytest.mark.slow
async def test_the_agent_elsewhere_answers_what_is_said_here_and_not_itself(
    server: Served, sound_devices: None, recording: Path
) -> None:
    if shutil.which("paplay") is None:
        pytest.skip("paplay missing: apt install pulseaudio-utils")
    with noema("talk", "--url", server.url, "--language", "eng", "--to", "deu") as talk:
        await talk.prints("Listening to eng")
        plays = 0
        while "first audio" not in talk.said and plays < TRIES:  # a starved sound server may swallow a sentence
            await asyncio.to_thread(subprocess.run, ["paplay", str(recording)], check=True, timeout=60)
            plays += 1
            await asyncio.to_thread(talk.wait_for, lambda said: "first audio" in said, 20)
        assert "≈ heard (eng)" in talk.said
        assert "→ reply (deu)" in talk.said
        # Its own reply sounds in the same room: were it heard, more turns would follow within seconds.
        spoken = SENTENCES * plays
        await asyncio.to_thread(talk.wait_for, lambda said: said.count("first audio") > spoken, 6)
        assert 1 <= talk.said.count("first audio") <= spoken
        talk.process.send_signal(signal.SIGINT)
        assert await talk.ends() == 130
        assert "Traceback" not in talk.said


@pytest.mark.slow
async def test_what_it_cannot_do_is_told_in_one_line(server: Served, sound_devices: None) -> None:
    for options, code, told in (
        (("--url", "ws://127.0.0.1:9"), 1, "is `noema serve` running there?"),
        (("--url", server.url, "--language", "klingon"), 2, "klingon"),
        (("--url", server.url, "--bundle", "mini"), 2, "start the server with it"),
        (("--url", server.url, "--task", "translate"), 2, "--to fra"),
    ):
        with noema("talk", *options) as talk:
            assert await talk.ends() == code, talk.said
            assert told in talk.said
            assert "Traceback" not in talk.said


async def test_speech_silences_the_loudspeaker_before_anything_else_happens(sound_devices: None) -> None:
    second = base64.b64encode(np.full(24_000, 3000, "<i2").tobytes()).decode()
    metrics = Metrics()
    async with Playback() as playback:
        with Screen(metrics) as screen:
            talk = Talk(RemoteConversation(metrics.add), screen, Loudspeaker(playback))
            await talk.hear({"type": "response.created", "response": {"id": "resp_1"}})
            for _ in range(10):
                delta = {"response_id": "resp_1", "item_id": "item_1", "delta": second}
                await talk.hear({"type": "response.output_audio.delta", **delta})
            await eventually(lambda: playback.heard_samples > 0)
            assert playback.playing
            await talk.hear({"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "item_2"})
            assert not playback.playing
