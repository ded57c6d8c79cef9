"""`noema serve` as a process: what it prints, how it ends, and that what is under way is finished first."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.agent.server.http import read_on
from tests.agent.server.running import Client
from tests.noema_command import ROOT

LONG = " ".join(f"This is sentence number {number} of a long story." for number in range(150))
INTERPRET = {"task": "translate", "reply_language": "fra"}


class Process:
    """`noema serve` in a process of its own, ready."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.greeting: list[str] = []
        assert process.stdout is not None
        while not self.greeting or not self.greeting[-1].startswith("Ctrl-C"):
            line = process.stdout.readline()
            assert line, (self.greeting, process.stderr and process.stderr.read())
            self.greeting.append(line.strip())
        self.port = int(self.greeting[0].split("127.0.0.1:")[1].split("/")[0].split(",")[0])
        self.url = f"ws://127.0.0.1:{self.port}/v1/realtime"

    def status(self, path: str) -> tuple[int, str]:
        """Of a page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ended(self) -> tuple[int, str]:
        """Exit code and the last line of stderr."""
        _, told = self.process.communicate(timeout=60)
        assert "Traceback" not in told
        return self.process.returncode, (told.splitlines() or [""])[-1]


@contextmanager
def serving(bundle: Path | str, folder: Path, *args: object, before: str = "") -> Iterator[Process]:
    """A server on a free port; `before` is run in its process first."""
    words = ["serve", "--port", "0", "--bundle", bundle, "--device", "cpu", *args]
    program = f"{before}\nfrom agent.cli import main\nimport sys\nsys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "XDG_DATA_HOME": str(folder), "NOEMA_TOKEN": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Process(process)
    finally:
        process.kill()
        process.communicate()


async def begin_a_long_reply(client: Client) -> None:
    await client.update(noema=INTERPRET, output_modalities=["audio"])
    await client.type(LONG)
    await client.until("response.output_audio.delta")


async def test_sigterm_lets_the_reply_finish(small_bundle: Path, tmp_path: Path) -> None:
    with serving(small_bundle, tmp_path) as server:
        async with connect(server.url, proxy=None, max_queue=None) as talking, connect(server.url, proxy=None) as idle:
            client = Client(talking)
            await begin_a_long_reply(client)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):  # nothing is under way there
                await read_on(idle)
            assert idle.close_code == 1012
            assert await asyncio.to_thread(server.status, "/readyz") == (503, "draining\n")
            assert (await asyncio.to_thread(server.status, "/healthz"))[0] == 200
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url, proxy=None)
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"]
            done = await client.until("response.done")
            assert done["response"]["status"] == "completed"
            with pytest.raises(ConnectionClosed):
                await client.until("never")
            assert talking.close_code == 1012
        assert (await asyncio.to_thread(server.ended))[0] == 0


async def test_a_second_signal_ends_at_once(small_bundle: Path, tmp_path: Path) -> None:
    with serving(small_bundle, tmp_path) as server:
        async with connect(server.url, proxy=None, max_queue=None) as talking:
            client = Client(talking)
            await begin_a_long_reply(client)
            server.process.send_signal(signal.SIGTERM)
            while (await asyncio.to_thread(server.status, "/readyz"))[0] == 200:
                pass
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await client.until("never")
            assert talking.close_code == 1012
            assert "response.done" not in client.kinds()
        assert (await asyncio.to_thread(server.ended))[0] == 0


def test_ctrl_c_ends_it_cleanly(small_bundle: Path, tmp_path: Path) -> None:
    with serving(small_bundle, tmp_path) as server:
        assert server.status("/readyz") == (200, "ready\n")
        server.process.send_signal(signal.SIGINT)
        assert server.ended()[0] == 130


def test_ctrl_c_ends_it_while_it_loads(small_bundle: Path, tmp_path: Path) -> None:
    before = (
        "import agent.inference.models as m, time; "
        "m.Models.load = lambda *a, **k: (print('loading', flush=True), time.sleep(99))"
    )
    words = ["serve", "--port", "0", "--bundle", str(small_bundle)]
    program = f"{before}\nfrom agent.cli import main\nimport sys\nsys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (130, "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells how far the loading is")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_while_weights_are_loaded(sent: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "agent", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and ".safetensors" not in Path(f"/proc/{process.pid}/maps").read_text():
            pass
        process.send_signal(sent)
        _, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (code, "")


async def test_a_model_that_hangs_ends_the_process_for_a_supervisor(small_bundle: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("server:\n  worker_timeout_s: 2\n")
    before = (
        "import agent.inference.models as m, time\ndecode = m.Models.encode_text\n"
        "m.Models.encode_text = lambda self, r: time.sleep(99) if 'hang' in r.text else decode(self, r)"
    )
    with serving(small_bundle, tmp_path, "--config", config, before=before) as server:
        async with connect(server.url, proxy=None, max_queue=None) as socket_:
            client = Client(socket_)
            assert (await client.ask("Hello."))["status"] == "completed"
            assert (await client.ask("Please hang."))["status"] == "failed"
            with pytest.raises(ConnectionClosed):
                await client.until("never")
            assert socket_.close_code == 1011
        code, told = await asyncio.to_thread(server.ended)
        assert code == 1
        assert told.startswith("noema: the model has not moved for 2 s and is taken to hang")


async def test_beyond_this_machine_a_token_is_asked_for(small_bundle: Path, tmp_path: Path) -> None:
    with serving(small_bundle, tmp_path, "--host", "0.0.0.0", "--tls", "self-signed") as server:
        greeting = server.greeting
        server.process.send_signal(signal.SIGTERM)
        _, told = server.process.communicate(timeout=60)
    urls = greeting[0].removeprefix("Noema serves on ").split(", ")
    tokens = {url.partition("#token=")[2] for url in urls}
    assert all(url.startswith("https://") for url in urls)
    assert len(tokens) == 1
    assert len(tokens.pop()) >= 20
    assert any("fingerprint" in line for line in greeting)
    assert "token" not in told


async def test_the_token_of_the_environment_opens_it(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    config = tmp_path / "mine.yaml"
    config.write_text("server:\n  token_variable: MY_TOKEN\n")
    with serving(small_bundle, tmp_path, "--config", config) as server:
        with pytest.raises(InvalidStatus):
            await connect(server.url, proxy=None)
        async with connect(server.url, proxy=None, additional_headers={"Authorization": "Bearer s3cret"}) as socket_:
            assert json.loads(await socket_.recv())["type"] == "session.created"
        assert "s3cret" not in "".join(server.greeting)


async def test_any_language_may_be_spoken(tmp_path: Path) -> None:
    with serving("mini", tmp_path, "--language", "auto") as server:
        async with connect(server.url, proxy=None, max_queue=None) as socket_:
            client = Client(socket_)
            updated = await client.update(noema={}, output_modalities=["text"])
            assert updated["session"]["noema"]["language"] == "auto"
            assert (await client.ask("Hello."))["status"] == "completed"


def test_a_language_that_the_bundle_lacks_is_told(small_bundle: Path) -> None:
    words = [sys.executable, "-m", "agent", "serve", "--port", "0", "--bundle", str(small_bundle), "--language", "xyz"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "xyz" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "192.0.2.1"], "no address of this machine"),
        (["--tls", "maybe"], "CERT:KEY"),
        (["--tls", "no.pem:no.key"], "no.pem is not a file"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_loaded(words: list[str], told: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "agent", "serve", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("token", ["q/5w==", "one two", "a:b", "é"])
def test_a_token_that_no_browser_can_show_is_told_before_anything_is_loaded(token: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "agent", "serve"],
        cwd=ROOT,
        env={**os.environ, "NOEMA_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "NOEMA_TOKEN" in ended.stderr
    assert "openssl rand -hex 32" in ended.stderr
    assert token not in ended.stderr


def test_a_taken_port_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "agent", "serve", "--port", str(port), "--bundle", "no such bundle"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr == f"noema: port {port} is taken; end what listens there, or choose another with --port\n"
