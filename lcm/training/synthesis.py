"""Synthesis: sentences in, training speech and its phones out. Knows nothing of models or of the live voice.

espeak-ng (GPL-3, loaded from the package espeakng-loader while training, never by the agent's process) speaks with
its own variants and with random ones of ours: formants, pitch, breath and roughness drawn anew, so that no timbre is
learnt by heart. Four variants are never trained on and speak the `synthetic` test; festival, whose voices are never
trained on either, speaks `unseen_engine`.
"""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lcm.errors import TrainingDataError

ESPEAK_RATE = 22_050
HELD_OUT_VARIANTS = ("Andrea", "Denis", "f4", "m7")
ACCENTS = {
    "eng": ("en-us", "en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029", "en-us-nyc"),
    "fra": ("fr", "fr", "fr-be", "fr-ch"),
    "spa": ("es", "es-419"),
    "deu": ("de",),
}
MAIN_ACCENT = {language: accents[0] for language, accents in ACCENTS.items()}
FLITE_VOICES = ("slt", "rms", "awb")
"""flite's other voices, kal and kal16, are the speaker of festival's kal_diphone: they stay unheard"""
RANDOM_VARIANTS = 90
"""espeak-ng holds 349 voices in all"""
FESTIVAL_VOICES = ("kal_diphone", "ked_diphone")

Int16Array = np.ndarray[Any, np.dtype[np.int16]]

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _IPA = 2, 0x8000, 1, 2
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice of espeak-ng and how it speaks."""

    accent: str
    variant: str
    rate_wpm: int = 175
    pitch: int = 50
    """0..99"""
    pitch_range: int = 50
    """0..99"""


class Espeak:
    """espeak-ng inside this process. Its state is the process's: where several take turns, each begins anew."""

    _at_work: "ClassVar[Espeak | None]" = None

    def __init__(self, data: Path | None = None) -> None:
        """Load it with `data`, a folder `espeak-ng-data`; its own if not given."""
        import espeakng_loader

        self._folder = data or Path(espeakng_loader.get_data_path())
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._chunks: list[bytes] = []
        self._callback = _CALLBACK(self._keep)
        self._begin()

    def _begin(self) -> None:
        """Takes the library. Initialised over what another had left, it has crashed."""
        if Espeak._at_work is self:
            return
        if Espeak._at_work is not None:
            self._library.espeak_Terminate()
        Espeak._at_work = None
        parent = os.fsencode(self._folder.parent)
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, parent, _DO_NOT_EXIT) != ESPEAK_RATE:
            advice = "reinstall espeakng-loader, or move it: espeak-ng takes no path over 140 bytes"
            raise TrainingDataError(f"espeak-ng does not start from {self._folder}; {advice}")
        self._library.espeak_SetSynthCallback(self._callback)
        Espeak._at_work = self

    def speak(self, text: str, speaker: Speaker) -> Int16Array:
        """The sentence at `ESPEAK_RATE`, [T]; empty if nothing in it can be said."""
        self._set_voice(f"{speaker.accent}+{speaker.variant}")
        for name, value in ((_RATE, speaker.rate_wpm), (_PITCH, speaker.pitch), (_RANGE, speaker.pitch_range)):
            self._library.espeak_SetParameter(name, value, 0)
        encoded = text.encode()
        self._chunks = []
        self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _UTF8, None, None)
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16)

    def ipa(self, text: str, accent: str) -> str:
        """The sentence as it is said."""
        self._set_voice(accent)
        encoded = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(encoded))
        clauses: list[str] = []
        while rest.value:  # one clause a call
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode())
        return " ".join(clauses)

    def _set_voice(self, name: str) -> None:
        self._begin()
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise TrainingDataError(f"espeak-ng has no voice {name!r}; reinstall espeakng-loader")

    def _keep(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0


class TrainingVariants:
    """An `espeak-ng-data` without the held-out variants and with random ones, that can be drawn again at any time."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        """Make it in `folder`."""
        import espeakng_loader

        original = Path(espeakng_loader.get_data_path())
        self.data = folder / "espeak-ng-data"
        self._own = self.data / "voices" / "!v"
        self._own.mkdir(parents=True)
        for path in original.iterdir():
            if path.name != "voices":
                (self.data / path.name).symlink_to(path)
        given = [path for path in sorted((original / "voices" / "!v").iterdir()) if path.name not in HELD_OUT_VARIANTS]
        for path in given:
            (self._own / path.name).symlink_to(path)
        self._drawn = [f"random{number}" for number in range(RANDOM_VARIANTS)]
        self.names = [path.name for path in given] + self._drawn
        self.draw(rng)

    def draw(self, rng: np.random.Generator) -> None:
        """New random variants under the old names: espeak-ng reads a variant's file whenever it takes the voice."""
        for name in self._drawn:
            (self._own / name).write_text(_random_variant(name, rng), encoding="utf-8")


def _random_variant(name: str, rng: np.random.Generator) -> str:
    """A variant file: throat, formants, pitch, tone; now and then breath, echo or Klatt's source."""
    throat = rng.uniform(88, 128)
    low = int(rng.uniform(60, 230))
    lines = ["language variant", f"name {name}", f"pitch {low} {int(low * rng.uniform(1.15, 1.7))}"]
    for formant in range(9):
        frequency = int((throat if formant else 100) * rng.uniform(0.95, 1.05))
        lines.append(f"formant {formant} {frequency} {int(rng.uniform(60, 125))} {int(rng.uniform(70, 160))}")
    lines += [f"flutter {int(rng.uniform(0, 8))}", f"roughness {int(rng.uniform(0, 5))}"]
    lines += [f"voicing {int(rng.uniform(80, 200))}", "consonants {} {}".format(*rng.integers(60, 140, 2))]
    lines.append("tone 200 {} 800 {} 2000 {} 4000 {}".format(int(rng.uniform(60, 255)), *rng.integers(20, 180, 3)))
    if rng.random() < 0.3:  # noqa: PLR2004
        lines.append("breath " + " ".join(str(int(b)) for b in rng.uniform(0, 60, 6)))
    if rng.random() < 0.15:  # noqa: PLR2004
        lines.append(f"echo {int(rng.uniform(10, 120))} {int(rng.uniform(5, 25))}")
    if rng.random() < 0.3:  # noqa: PLR2004
        lines.append(f"klatt {int(rng.integers(1, 6))}")
    return "\n".join(lines) + "\n"


def random_speaker(language: str, variants: Sequence[str], rng: np.random.Generator) -> Speaker:
    """Anyone: accent, variant, rate and pitch at random."""
    accents = ACCENTS[language]
    return Speaker(
        accents[rng.integers(len(accents))],
        variants[int(rng.integers(len(variants)))],
        rate_wpm=int(rng.uniform(120, 235)),
        pitch=int(rng.uniform(15, 85)),
        pitch_range=int(rng.uniform(20, 85)),
    )


def held_out_speaker(language: str, number: int) -> Speaker:
    """Who says sentence `number` of the test: a variant that no training heard, at one of three rates."""
    variant = HELD_OUT_VARIANTS[number % len(HELD_OUT_VARIANTS)]
    return Speaker(MAIN_ACCENT[language], variant, rate_wpm=(150, 170, 190)[number // len(HELD_OUT_VARIANTS) % 3])


def speak_reproducibly(sentences: Sequence[tuple[str, Speaker]]) -> list[Int16Array]:
    """The sentences at `ESPEAK_RATE`, each from a fresh fork: espeak-ng drifts from call to call."""
    # The forking process must have no threads, so it is not this one.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return [np.frombuffer(samples, dtype=np.int16) for samples in pool.submit(_fork_for_each, sentences).result()]


def _fork_for_each(sentences: Sequence[tuple[str, Speaker]]) -> list[bytes]:
    espeak = Espeak()
    return [_in_a_fork(espeak, text, speaker) for text, speaker in sentences]


def _in_a_fork(espeak: Espeak, text: str, speaker: Speaker) -> bytes:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as out:
                out.write(espeak.speak(text, speaker).tobytes())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as spoken:
        samples = spoken.read()
    os.waitpid(child, 0)
    return samples


def flite(text: str, voice: str) -> bytes:
    """A WAV file of `text` in one of `FLITE_VOICES`.

    Raises:
        TrainingDataError: flite is not installed or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "speech.wav"
        _run(["flite", "-voice", voice, "-t", text, "-o", str(out)])
        return out.read_bytes()


def festival(texts: Sequence[str], voice: str) -> list[bytes]:
    """WAV files of `texts` in one of `FESTIVAL_VOICES`, by one process.

    Raises:
        TrainingDataError: festival or the voice is not installed, or it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{voice})"]
        for number, text in enumerate(texts):
            escaped = text.replace("\\", " ").replace('"', "'")
            spoken = f'(utt.synth (Utterance Text "{escaped}"))'
            lines.append(f'(utt.save.wave {spoken} "{folder}/{number}.wav" "riff")')
        script = Path(folder) / "speak.scm"
        script.write_text("\n".join(lines), encoding="latin-1", errors="replace")
        _run(["festival", "--batch", str(script)])
        return [(Path(folder) / f"{number}.wav").read_bytes() for number in range(len(texts))]


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        packages = "festival festvox-kallpc16k festvox-kdlpc16k" if command[0] == "festival" else command[0]
        raise TrainingDataError(f"{command[0]} is missing: apt-get install {packages}") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise TrainingDataError(f"{command[0]} failed ({' '.join(last)}); are its voices installed?") from error
