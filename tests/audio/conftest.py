"""Real sound for the audio tests: a private PulseAudio with a null sink, and speech from our own voice."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from audio.errors import DeviceError

# A busy machine is no failure, and the same examples everywhere make a failure one that repeats.
settings.register_profile("noema", deadline=None, derandomize=True)
settings.load_profile("noema")

PULSE_SCRIPT = """
load-module module-native-protocol-unix socket={socket} auth-anonymous=1
load-module module-null-sink sink_name=noema rate=48000
load-module module-remap-source master=noema.monitor source_name=noema_microphone
set-default-sink noema
set-default-source noema_microphone
"""


@pytest.fixture(scope="session")
def sound_devices() -> Iterator[None]:
    """A loudspeaker and a microphone that hears it, without any hardware."""
    try:
        from audio.devices import load_sounddevice

        sounddevice = load_sounddevice()
    except DeviceError as error:
        pytest.skip(f"PortAudio missing: {error}")
    if shutil.which("pulseaudio") is None:
        pytest.skip("PulseAudio missing: apt install pulseaudio")
    # Not pytest's folder: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="noema-pulse-") as folder:
        server = _start_pulse(Path(folder))
        before = os.environ.get("PULSE_SERVER")
        os.environ["PULSE_SERVER"] = f"unix:{folder}/socket"
        sounddevice._terminate()
        sounddevice._initialize()
        try:
            if not any(device["name"] == "pulse" for device in sounddevice.query_devices()):
                pytest.skip("ALSA's PulseAudio plugin missing: apt install libasound2-plugins")
            yield
        finally:
            sounddevice._terminate()
            if before is None:
                del os.environ["PULSE_SERVER"]
            else:
                os.environ["PULSE_SERVER"] = before
            server.terminate()
            server.wait(10)
            sounddevice._initialize()


def _start_pulse(folder: Path) -> subprocess.Popen[bytes]:
    script = folder / "noema.pa"
    script.write_text(PULSE_SCRIPT.format(socket=folder / "socket"), encoding="utf-8")
    server = subprocess.Popen(
        ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes", "-n", "-F", str(script)],
        env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while not (folder / "socket").exists():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            server.wait(10)
            pytest.skip("PulseAudio does not start here")
        time.sleep(0.02)
    return server
