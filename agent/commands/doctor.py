"""`noema doctor`: what works on this machine, and what to do about what does not."""

import argparse
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from agent.commands.options import add_json_option, add_model_options, print_json, settings, subparser
from agent.errors import FAILED, OK, one_line

if TYPE_CHECKING:
    from agent.config import AgentConfig

_EXAMPLES = """
noema doctor
noema doctor --bundle sonar --precision bfloat16
noema doctor --bundle /path/to/bundle --json
"""


@dataclass(frozen=True, slots=True)
class _Finding:
    part: str
    state: Literal["works", "missing", "broken"]
    """missing: something optional; broken: something noema cannot do without."""
    detail: str


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommand."""
    parser = subparser(commands, "doctor", "check what works on this machine", _EXAMPLES)
    add_json_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks every part, prints a line for each."""
    config = settings(args)
    findings = []
    for finding in _examine(config):
        findings.append(finding)
        if not args.json:
            mark = {"works": "✓", "missing": "–", "broken": "✗"}[finding.state]
            print(f"{mark} {finding.part:18} {finding.detail}", flush=True)
    healthy = not any(finding.state == "broken" for finding in findings)
    if args.json:
        print_json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    return OK if healthy else FAILED


def _examine(config: "AgentConfig") -> Iterator[_Finding]:
    yield _Finding("python", "works", f"{platform.python_version()} in {sys.prefix}, {platform.platform()}")
    yield _checked("torch", _torch)
    yield _checked("bundle", lambda: _bundle(config))
    yield _checked("concept space", lambda: _space(config))
    yield _checked("detector silero", lambda: _detector("silero"))
    yield _checked("detector webrtc", lambda: _detector("webrtc"))
    yield _checked("voice", lambda: _voice(config))
    yield _checked("sound files", _sound_files)
    yield _checked("microphone", lambda: _devices("inputs"), optional=True)
    yield _checked("loudspeaker", lambda: _devices("outputs"), optional=True)
    yield _checked("sessions folder", _sessions, optional=True)


def _checked(part: str, check: Callable[[], str], *, optional: bool = False) -> _Finding:
    try:
        return _Finding(part, "works", check())
    except Exception as error:  # noqa: BLE001 - whatever is wrong is what this command reports
        return _Finding(part, "missing" if optional else "broken", one_line(error))


def _torch() -> str:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        devices.append("mps")
    return f"{torch.__version__}, {torch.get_num_threads()} threads, {', '.join(devices)}"


def _bundle(config: "AgentConfig") -> str:
    from lcm.bundle import Bundle

    bundle = Bundle.open(config.bundle, verify=True)
    megabytes = sum(size for size, _ in bundle.description["files"].values()) / 1e6
    return f"{bundle.folder}, {megabytes:.1f} MB, every hash right; space {bundle.space_id}: {', '.join(bundle.parts)}"


def _space(config: "AgentConfig") -> str:
    import time

    from lcm.space import ConceptSpace
    from lcm.space.languages import few

    start = time.perf_counter()
    space = ConceptSpace.load(config.bundle, device=config.device, precision=config.precision, backend=config.backend)
    said = space.decode_text(space.encode_text(["The cat is hungry."], language="eng"), language="eng")[0]
    spent = time.perf_counter() - start
    languages = "; ".join(f"{kind}: {few(known) or 'none'}" for kind, known in space.languages.items())
    used = f"{config.precision} on {space.device}, backend {config.backend}"
    return f"{used}; loaded in {spent:.1f} s; {languages}; «The cat is hungry.» → «{said}»"


def _detector(name: Literal["silero", "webrtc"]) -> str:
    import time

    import numpy as np

    from audio.frames import FRAME_SAMPLES, AudioFrame
    from audio.vad import load_vad

    vad = load_vad(name)
    noise = np.random.default_rng(0).normal(0, 0.01, FRAME_SAMPLES).astype(np.float32)
    start = time.perf_counter()
    for number in range(100):
        vad.probability(AudioFrame(noise, number * FRAME_SAMPLES))
    return f"{(time.perf_counter() - start) * 10:.3f} ms a frame"


def _voice(config: "AgentConfig") -> str:
    import asyncio
    import time

    from audio.frames import VOICE_RATE
    from audio.voice import Voice

    async def speak() -> str:
        async with Voice() as voice:
            await voice.synthesize("one", config.language)
            start = time.perf_counter()
            sound = await voice.synthesize("It works.", config.language)
            spent = (time.perf_counter() - start) * 1000
        return f"espeak-ng, {len(sound) / VOICE_RATE:.1f} s of speech in {spent:.0f} ms"

    return asyncio.run(speak())


def _sound_files() -> str:
    import soundfile

    return f"libsndfile {soundfile.__libsndfile_version__}: wav, flac, mp3, ogg, opus"


def _devices(kind: Literal["inputs", "outputs"]) -> str:
    from audio.devices import list_devices
    from audio.errors import DeviceError

    names = [device.name for device in list_devices() if getattr(device, kind)]
    if not names:
        raise DeviceError("none found; `noema replay` and `noema chat` work without")
    return ", ".join(names)


def _sessions() -> str:
    import tempfile

    from agent.recordings.recording import sessions_folder

    folder = sessions_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    return str(folder)
