"""`noema serve`: live conversations over websockets, and the page that holds them in a browser."""

import argparse
import asyncio
import contextlib
import logging
import re
import secrets
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from agent.commands.options import (
    LANGUAGE_HELP,
    TASKS,
    add_model_options,
    add_thinker_options,
    settings,
    subparser,
    warn,
)
from agent.errors import INTERRUPTED, OK, UsageError
from agent.server.memory import keep_little

if TYPE_CHECKING:
    from agent.config import AgentConfig, ServerConfig
    from agent.inference.models import Models
    from agent.opening import Opened
    from agent.server.conversations import Conversations
    from agent.server.server import Server
    from agent.server.tls import Tls

_EXAMPLES = """
noema serve
noema serve --port 9000 --record
noema serve --host 0.0.0.0 --tls self-signed         for a phone on the same network
noema serve --host 0.0.0.0 --tls cert.pem:key.pem
NOEMA_TOKEN=… noema serve --config server.yaml       who connects must show the token
"""
_LAST_PORT = 65_535
_TOKEN_BYTES = 16
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
"""What a browser can show: it has no other place than a subprotocol's name, which is a token of RFC 9110, 5.6.2"""
_GIVING_UP_S = 2.0
"""For the news that the model hangs to reach the clients"""
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommand."""
    parser = subparser(commands, "serve", "serve live conversations and the web page", _EXAMPLES)
    parser.add_argument("--host", metavar="H", help="address to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument(
        "--port", metavar="P", type=_port, help="port to listen on (default: 8765; 0: any that is free)"
    )
    parser.add_argument("--tls", metavar="T", help="self-signed, or CERT:KEY, two files in PEM (default: plain HTTP)")
    parser.add_argument("--language", metavar="L", help=f"what is spoken unless a client says, {LANGUAGE_HELP}")
    parser.add_argument("--task", choices=TASKS, help="what to do unless a client says (default: converse)")
    add_thinker_options(parser)
    parser.add_argument("--text", action="store_true", help="reply in text only")
    parser.add_argument("--record", action="store_true", help="keep every session; clients are told")
    parser.add_argument("--verbose", action="store_true", help="log more; never what is said, nor any token")
    add_model_options(parser)
    parser.set_defaults(run=run_serve)


def run_serve(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C; either again ends at once."""
    config = settings(args)
    given = {name: value for name in ("host", "port", "tls") if (value := getattr(args, name)) is not None}
    server = config.server.model_copy(update=given)
    config = config.model_copy(update={"server": server, "record": config.record or args.record})
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    keep_little()
    return asyncio.run(_serve(config, spoken=not args.text))


class _Stop:
    """What signals ask for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self.code = OK
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ask, number)

    def _ask(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            self.at_once.set()
            return
        self.code = INTERRUPTED if number == signal.SIGINT else OK
        self.asked.set()


async def _serve(config: "AgentConfig", *, spoken: bool) -> int:
    from agent.live.telemetry import Telemetry
    from agent.server.access import Access
    from agent.server.server import Server
    from agent.server.tls import load_tls, machine_names

    stop, limits = _Stop(), config.server
    tls = load_tls(limits.tls, machine_names()) if limits.tls else None
    token, is_new = _token(limits)
    access = Access(token, [*machine_names(), *limits.hosts, limits.host], limits.origins)
    async with AsyncExitStack() as stack:
        # The port first: that it is taken should not cost the time to load the models.
        server = await stack.enter_async_context(Server(limits, access, Telemetry(), tls.context if tls else None))
        conversations = await _unless(stop.asked, _open(config, server, stack, spoken=spoken))
        if conversations is None:
            return stop.code
        there, talks = conversations
        _greet(limits, server.port, tls, token if is_new else None)
        await _until_stopped(there, server, talks, stop)
        await server.close(limits.close_s if not stop.at_once.is_set() else 0.0)
    return stop.code


def _token(limits: "ServerConfig") -> tuple[str | None, bool]:
    """What clients must show, and whether it was made just now: whoever listens to a network asks for one."""
    from agent.server.listening import is_loopback

    token = limits.token()
    if token is not None and not _TOKEN.fullmatch(token):
        advice = "may hold letters, digits and - _ . ~ only; one is made by: openssl rand -hex 32"
        raise UsageError(f"the token in {limits.token_variable} {advice}")
    if token is None and not is_loopback(limits.host):
        return secrets.token_hex(_TOKEN_BYTES), True  # no dash to begin with: `--token` takes it
    return token, False


async def _open(
    config: "AgentConfig", server: "Server", stack: AsyncExitStack, *, spoken: bool
) -> "tuple[Opened, Conversations]":
    """Loads the models; from then on, sessions are taken."""
    from agent.core.events import Task
    from agent.live.live_session import House
    from agent.opening import opened
    from agent.server.conversations import Conversations
    from agent.server.translations import Translations

    def check(models: "Models") -> None:
        models.check_languages(config.language, speech=bool(models.space.languages["speech"]))

    tasks = get_args(Task) if config.task == "converse" or _converses(config) else ("translate", "transcribe")
    there = await stack.enter_async_context(opened(config, tasks, spoken=spoken, typed=True, live=True, check=check))
    house = House(there, config.server, server.telemetry, await _store(config, stack))
    conversations = await stack.enter_async_context(Conversations(house, server.access, server.gate))
    translations = Translations(house, server.access, server.gate, conversations.session, conversations.number)
    server.open({"/v1/realtime": conversations, "/v1/realtime/translations": translations})
    return there, conversations


def _converses(config: "AgentConfig") -> bool:
    """Whether a conversation can be had, rather than only interpreted."""
    from lcm.bundle import Bundle

    return config.thinker.name == "openai" or "base" in Bundle.open(config.bundle).parts


async def _store(config: "AgentConfig", stack: AsyncExitStack) -> Any:
    """Where sessions wait for their clients; a server that has none serves all the same."""
    from agent.errors import StoreError
    from agent.store.session_store import SessionStore, store_path

    if not config.server.keep_s:
        return None
    try:
        return await stack.enter_async_context(SessionStore(store_path(), warn=warn))
    except StoreError as error:
        warn(f"{error}; until then, no session outlives its connection")
        return None


async def _until_stopped(there: "Opened", server: "Server", talks: "Conversations", stop: _Stop) -> None:
    """Serves; when asked to stop, lets replies finish, unless asked again."""
    from agent.errors import WorkerHung, first_known
    from agent.server.parting import FAILED
    from agent.server.watchdog import watch

    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(there.worker, server.config.worker_timeout_s), name="watchdog")
            await stop.asked.wait()
            _log.info("stopping; replies under way have %g s, a second signal ends at once", server.config.drain_s)
            await _unless(stop.at_once, server.drain())
            watching.cancel()
    except BaseExceptionGroup as group:
        error = first_known(group)
        if isinstance(error, WorkerHung):
            server.state = "hung"
            there.worker.give_up(error)
            await talks.drain(_GIVING_UP_S, FAILED)
        raise error from None


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """What comes of some work; None if the event came first: the work is cancelled then."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return None
        return task.result()
    finally:
        task.cancel()
        waiting.cancel()


def _greet(limits: "ServerConfig", port: int, tls: "Tls | None", token: str | None) -> None:
    from agent.server.listening import addresses, is_loopback

    scheme, fragment = "https" if tls else "http", f"/#token={token}" if token else ""
    urls = addresses(limits.host, port, scheme)
    print("Noema serves on " + ", ".join(url + fragment for url in urls))
    print(f"Realtime clients: {urls[0].replace('http', 'ws', 1)}/v1/realtime")
    if tls and tls.fingerprint:
        print("Browsers will warn, since nobody vouches for the certificate. Its SHA-256 fingerprint:")
        print(f"  {tls.fingerprint}")
    elif not tls and not is_loopback(limits.host):
        print("Browsers elsewhere give a page its microphone over HTTPS only: add --tls self-signed")
    print("Ctrl-C ends.", flush=True)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to {_LAST_PORT}, not {text}")
    return int(text)
