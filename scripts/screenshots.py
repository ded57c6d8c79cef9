"""Takes the pictures of the web page that the documents show: a real conversation, once for each size and scheme.

    python -m scripts.screenshots [--out docs]

Needs Chromium and playwright (the dev extra). Prints where the pictures are, as JSON.
"""

import argparse
import asyncio
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from audio.files import write_audio
from audio.frames import VOICE_RATE
from audio.resample import resample
from audio.voice import Voice
from scripts.server_process import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

ROOT = Path(__file__).parents[1]
TYPED = ("What are you doing tonight?", "Let's go to the cinema.", "How much does it cost?")
INTERPRETED = ("My father is a teacher.", "I would like a cup of coffee.")
SPOKEN = "Can you help me?"
SIZES: "dict[str, tuple[ViewportSize, float]]" = {
    "desktop": ({"width": 1280, "height": 800}, 1.0),
    "phone": ({"width": 360, "height": 740}, 1.5),
}
"""And pixels of the picture for one of the page"""
SCHEMES: "tuple[Literal['light', 'dark'], ...]" = ("light", "dark")
FLAGS = ("--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
         "--autoplay-policy=no-user-gesture-required", "--disable-background-networking")  # fmt: skip
IDLE = "() => noema.speaker.queued === 0 && noema.live.floor.response === null && !noema.live.floor.thinking"
HALF_HEARD = "() => { const { role, heardMs, soundMs } = noema.live.conversation.lines.at(-1);" \
             "return role === 'assistant' && heardMs > 0.4 * soundMs; }"  # fmt: skip


def main() -> None:
    """Serves, converses, takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder for the pictures (default: docs)")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    files = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speech = asyncio.run(_write_speech(folder / "speech.wav"))
        with serving(folder, {}) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                args=[*FLAGS, f"--use-file-for-fake-audio-capture={speech}%noloop"],
            )
            for (size, (view, scale)), scheme in itertools.product(SIZES.items(), SCHEMES):
                page = browser.new_page(
                    viewport=view, color_scheme=scheme, device_scale_factor=scale, has_touch=size == "phone"
                )
                page.goto(f"http://{server.address}/")
                _converse(page)
                files.append(args.out / f"live-{size}-{scheme}.png")
                page.screenshot(path=files[-1])
                page.close()
            browser.close()
    print(json.dumps({"files": [str(file) for file in files]}))


async def _write_speech(path: Path) -> Path:
    async with Voice() as voice:
        samples = await voice.synthesize(SPOKEN, "eng")
    write_audio(path, resample(samples, VOICE_RATE, 48_000), 48_000)
    return path


def _converse(page: "Page") -> None:
    """Typed and answered, typed and interpreted, spoken and interpreted; up to the middle of the last reply."""
    page.wait_for_selector("#connection[data-state=open]", state="attached")
    for text in TYPED:
        _ask(page, text)
    page.get_by_label("What Noema does").select_option(label="interprets")
    page.get_by_label("In which language").select_option(label="German")
    for text in INTERPRETED:
        _ask(page, text)
    said = page.evaluate("noema.live.conversation.lines.length")
    page.get_by_role("button", name="Microphone").click()
    page.wait_for_function(f"() => noema.live.conversation.lines.length > {said + 1}")
    page.wait_for_function(HALF_HEARD)


def _ask(page: "Page", text: str) -> None:
    page.get_by_label("Type a sentence").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_function("() => noema.speaker.queued > 0")
    page.wait_for_function(IDLE)


if __name__ == "__main__":
    main()
