"""Makes the sample that the first minute plays: two speakers, two languages, spoken by our own voice.

    python -m scripts.make_sample

Receives nothing, writes `agent/samples/first_words.opus` and its notes; the same bytes of speech every time.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio.files import write_audio
from audio.frames import SAMPLE_RATE, VOICE_RATE, FloatArray
from audio.resample import resample
from audio.voice import Voice

FOLDER = Path(__file__).parents[1] / "agent" / "samples"
LEAD_S = 0.6
GAP_S = 3.2
"""Room for an interpreter before the next one speaks."""
PEAK = 0.6


@dataclass(frozen=True, slots=True)
class Line:
    """What one speaker says."""

    language: str
    variant: str
    pitch: int
    text: str


LINES = (  # short everyday sentences, of those that the mini bundle hears well: it is a demonstration, no measurement
    Line("eng", "f2", 52, "Do you speak French?"),
    Line("fra", "m3", 42, "Parlez-vous anglais ?"),
    Line("eng", "f2", 52, "I need a doctor."),
    Line("fra", "m3", 42, "Pouvez-vous m'aider ?"),
    Line("eng", "f2", 52, "My father is a doctor."),
    Line("fra", "m3", 42, "C'est trop cher."),
)


async def make() -> None:
    """Speaks every line and writes the sample."""
    rng = np.random.default_rng(0)
    parts, segments = [_quiet(rng, LEAD_S)], []
    async with Voice() as voice:
        for line in LINES:
            spoken = await voice.synthesize(
                line.text, line.language, rate_wpm=150, pitch=line.pitch, variant=line.variant
            )
            samples = resample(spoken, VOICE_RATE, SAMPLE_RATE)
            start = sum(map(len, parts))
            parts += [samples * PEAK / np.abs(samples).max(), _quiet(rng, GAP_S)]
            segments.append(
                {
                    "start_ms": start * 1000 // SAMPLE_RATE,
                    "end_ms": (start + len(samples)) * 1000 // SAMPLE_RATE,
                    "language": line.language,
                    "text": line.text,
                }
            )
    FOLDER.mkdir(exist_ok=True)
    sound = np.concatenate(parts)
    write_audio(FOLDER / "first_words.opus", sound, SAMPLE_RATE)
    notes = {"made_by": "python -m scripts.make_sample", "voice": "espeak-ng", "segments": segments}
    text = json.dumps(notes, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / "first_words.json").write_text(text, encoding="utf-8")
    print(f"{len(sound) / SAMPLE_RATE:.1f} s in {FOLDER / 'first_words.opus'}")


def _quiet(rng: np.random.Generator, seconds: float) -> FloatArray:
    return rng.normal(0.0, 0.0008, int(seconds * SAMPLE_RATE)).astype(np.float32)


if __name__ == "__main__":
    asyncio.run(make())
