"""Chromium for tests: the system's own, driven by playwright. Whoever lacks one of the two is told by name."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    Launch = Callable[..., Browser]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
          "--disable-sync", "--no-first-run")  # fmt: skip
HEARS = ("--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required")
"""A microphone made of software, and pages that may sound unasked. Add `speaking` for what is said into it, and
`ALLOWED` or `REFUSED`"""
ALLOWED = "--use-fake-ui-for-media-stream"
REFUSED = "--deny-permission-prompts"


def speaking(recording: Path) -> str:
    """The flag that plays a wav file into the microphone, once, from the moment it is opened."""
    return f"--use-file-for-fake-audio-capture={recording}%noloop"


@contextmanager
def chromium() -> Iterator["Launch"]:
    """What starts browsers, with flags of theirs; they are closed at the end. Skips the test where there is none.

    Nothing of asyncio can run on the same thread until then.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright missing: pip install playwright")
    path = next((found for name in (*_NAMES, _MAC) if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("Chromium missing: apt install chromium")
    with api.sync_playwright() as playwright, ExitStack() as stack:

        def launch(*flags: str) -> "Browser":
            browser: Browser = playwright.chromium.launch(executable_path=path, args=[*_QUIET, *flags])
            stack.callback(browser.close)
            return browser

        yield launch
