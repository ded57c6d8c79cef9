"""`noema listen`: a session on a server elsewhere, followed in a language of one's own."""

import argparse
import asyncio
import base64
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from agent.client.server_address import DEFAULT_URL, ServerAddress, address, share_link
from agent.commands.options import add_server_options, subparser, warn
from agent.errors import OK, RemoteError, UsageError, one_line

if TYPE_CHECKING:
    from audio.playback import Playback

_EXAMPLES = """
noema listen 'http://192.0.2.7:8765/listen#session=sess_1a2b&token=…' --language deu
NOEMA_TOKEN=… noema listen --session sess_1a2b --language deu
noema listen --url wss://talks.example.org --session sess_1a2b --language fra --token-file token --text
"""
_SOURCES = ("speaker", "agent", "both")
_PATH = "/v1/realtime/translations"
_BEHIND_S = 60.0
"""Sound that may wait; beyond it, what is said now is worth more"""
_NOT_FOUND = 404
_COMES_BACK_S = 120.0
"""How long a session that was there may be gone: its server restarts, and its speaker has to come back first"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommand."""
    parser = subparser(commands, "listen", "follow somebody's session in a language of your own", _EXAMPLES)
    parser.add_argument(
        "link", nargs="?", metavar="LINK", help="what you were given; other users of this machine can read it with ps"
    )
    add_server_options(parser, default=DEFAULT_URL)
    parser.add_argument("--session", metavar="ID", help="which session")
    parser.add_argument(
        "--language", metavar="L", help="to follow it in, ISO 639-3 (default: the link's, if it has one)"
    )
    parser.add_argument("--source", choices=_SOURCES, default="both", help="whom to follow (default: both)")
    parser.add_argument("--text", action="store_true", help="captions only")
    parser.add_argument("--output", metavar="DEVICE", help="loudspeaker: number or part of its name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Follows the session until it is over, or Ctrl-C."""
    url, session, token, language = args.url, args.session, args.token, args.language
    if args.link is not None:
        link = share_link(args.link)
        url, session, token, language = link.url, link.session, token or link.token, language or link.language
    if session is None:
        raise UsageError("follow which session? Give the link you were given, or --session ID")
    if language is None:
        raise UsageError("follow it in which language? No link names one; give --language deu, for instance")
    place = address(url, token, args.token_file, args.ca)
    if place.token is None:
        raise UsageError("listeners need a token: it is in the link that the speaker's page gives; give that LINK")
    asked = {"session": session, "language": language, "source": args.source, "audio": str(not args.text).lower()}
    path = f"{_PATH}?{urlencode(asked, quote_via=quote)}"
    return asyncio.run(_listen(place, path, args))


async def _listen(place: ServerAddress, path: str, args: argparse.Namespace) -> int:
    from audio.errors import DeviceError
    from audio.playback import Playback

    device = int(args.output) if args.output is not None and args.output.isdigit() else args.output
    async with AsyncExitStack() as stack:
        try:
            playback = None if args.text else await stack.enter_async_context(Playback(device))
        except DeviceError as error:
            raise DeviceError(f"{error}; --text follows it in captions only") from error
        captions = _Captions(playback)
        await _follow(place, path, captions)
        if playback is not None:
            await playback.drain()
    print("The session is over.", flush=True)
    return OK


async def _follow(place: ServerAddress, path: str, captions: "_Captions") -> None:
    """Listens until the session is over, over as many connections as it takes.

    Raises:
        RemoteError: it cannot be listened to.
    """
    from agent.client.client_connection import Cut, Patience, connected

    loop, patience = asyncio.get_running_loop(), Patience()
    there_at: float | None = None
    while True:
        try:
            async with connected(place, path) as connection:
                patience.connected()
                while captions.take(await connection.receive()):
                    there_at = loop.time()
                return
        except Cut as cut:
            reason = one_line(cut)
        except RemoteError as error:
            gone = error.status == _NOT_FOUND and there_at is not None and loop.time() - there_at < _COMES_BACK_S
            if there_at is None or not (error.temporary or gone):
                raise
            reason = one_line(error)
        warn(f"{reason}; connecting again")
        await patience.rest()


class _Captions:
    """What is said, as lines and as sound."""

    def __init__(self, playback: "Playback | None") -> None:
        self._playback = playback
        self._written = 0
        self._bold = sys.stdout.isatty()

    def take(self, message: dict[str, Any]) -> bool:
        """Shows or plays a message. False: it was the last."""
        match message["type"]:
            case "session.created":
                language = message["session"]["audio"]["output"]["language"]
                print(f"Listening in {language}. Ctrl-C ends.", flush=True)
            case "session.output_transcript.delta":
                mark = "→ agent  " if message["speaker"] == "agent" else "≈ speaker"
                print(f"{self._shown(mark)}  {message['delta'].strip()}", flush=True)
            case "session.output_audio.delta":
                self._play(base64.b64decode(message["delta"]))
            case "noema.warning":
                warn(message["message"])
            case "error":
                warn(message["error"]["message"])
            case _:
                pass
        return bool(message["type"] != "session.closed")

    def _shown(self, mark: str) -> str:
        return f"\033[1m{mark}\033[0m" if self._bold else mark

    def _play(self, pcm: bytes) -> None:
        import numpy as np

        from audio.frames import VOICE_RATE, from_pcm16

        if self._playback is None:
            return
        if self._written - self._playback.heard_samples > _BEHIND_S * VOICE_RATE:
            self._playback.clear()
            self._written = 0
            warn("the sound was a minute behind; it goes on with what is said now")
        samples = from_pcm16(np.frombuffer(pcm, dtype="<i2"))
        self._playback.write(samples)
        self._written += len(samples)
