"""What PortAudio finds: the sound devices of this machine. Imports sounddevice only when asked.

Knows nothing of frames. Without PortAudio, or without a device, `DeviceError` says what to do.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Literal, TypeAlias

from audio.errors import DeviceError

DeviceId: TypeAlias = int | str | None
"""A number or part of a name as `list_devices` gives them; None is the default device"""

_INVALID_SAMPLE_RATE = -9997  # PortAudio's paInvalidSampleRate
_NONE = "querying device -1"
"""What PortAudio says where there is no device at all"""


@dataclass(frozen=True, slots=True)
class AudioDevice:
    """A sound device."""

    index: int
    name: str
    inputs: int
    """Channels it records"""
    outputs: int
    """Channels it plays"""
    is_default_input: bool
    is_default_output: bool


def load_sounddevice() -> ModuleType:
    """Import sounddevice, which loads PortAudio.

    Raises:
        DeviceError: one of them is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceError("sound devices need the package sounddevice; run: pip install -e .") from error
    except OSError as error:
        raise DeviceError("PortAudio is missing; on Debian or Ubuntu run: apt install libportaudio2") from error
    module: ModuleType = sounddevice
    return module


def list_devices() -> list[AudioDevice]:
    """All devices, in PortAudio's order; empty where there is none."""
    sounddevice = load_sounddevice()
    default_input, default_output = sounddevice.default.device
    return [
        AudioDevice(
            index=index,
            name=device["name"],
            inputs=device["max_input_channels"],
            outputs=device["max_output_channels"],
            is_default_input=index == default_input,
            is_default_output=index == default_output,
        )
        for index, device in enumerate(sounddevice.query_devices())
    ]


def usable_rate(kind: Literal["input", "output"], device: DeviceId, wanted: int) -> int:
    """The rate to open a device with: the wanted one, or else its own.

    Raises:
        DeviceError: there is no such device, or it refuses.
    """
    sounddevice = load_sounddevice()
    check = sounddevice.check_input_settings if kind == "input" else sounddevice.check_output_settings
    try:
        try:
            check(device=device, channels=1, dtype="float32", samplerate=wanted)
        except sounddevice.PortAudioError as error:
            if _INVALID_SAMPLE_RATE not in error.args:
                raise
            own = int(sounddevice.query_devices(device, kind)["default_samplerate"])
            check(device=device, channels=1, dtype="float32", samplerate=own)
            return own
    except (sounddevice.PortAudioError, ValueError) as error:
        raise refused(kind, device, error) from error
    return wanted


def refused(kind: Literal["input", "output"], device: DeviceId, error: Exception) -> DeviceError:
    """Say in one line that a device cannot be used."""
    name = "microphone" if kind == "input" else "loudspeaker"
    which = f"the {name}" if device is None else f"the {name} '{device}'"
    reason = str(error.args[0]) if error.args else str(error)
    if device is None and _NONE in reason:
        return DeviceError(f"there is no {name} here; plug one in, or see what there is: noema doctor")
    return DeviceError(f"{which} cannot be used ({reason}); see which there are: noema talk --list-devices")
