"""The server on a loopback port: pages, health, figures, who is refused and how, and what shutting down looks like."""

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent.config import ServerConfig
from agent.errors import UsageError
from agent.server.server import Server
from agent.server.tls import load_tls
from tests.agent.server.http import ask, dial, echoing, reply_of, until

UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


async def refused(server: Server, **more: object) -> tuple[int, str]:
    """Status and Retry-After of a websocket that is not opened."""
    with pytest.raises(InvalidStatus) as caught:
        async with dial(server, **more):
            pass
    response = caught.value.response
    return response.status_code, response.headers.get("Retry-After", "")


def measured(body: bytes) -> dict[str, float]:
    """Every sample of /metrics without labels, and those with one as name{value}."""
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            label = "{" + ",".join(sample.labels.values()) + "}" if sample.labels else ""
            found[sample.name + label] = sample.value
    return found


async def test_it_is_healthy_and_ready() -> None:
    async with echoing() as server:
        for path in ("/healthz", "/readyz"):
            reply = await ask(server.port, path)
            assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
            head = await ask(server.port, path, method="HEAD")
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-length"] == reply.headers["content-length"]


async def test_until_there_are_models_it_is_healthy_but_not_ready() -> None:
    async with echoing() as server:
        server.state = "loading"
        assert (await ask(server.port, "/healthz")).status == 200
        reply = await ask(server.port, "/readyz")
        assert (reply.status, reply.body, reply.headers["retry-after"]) == (503, b"loading\n", "5")
        assert await refused(server) == (503, "5")


async def test_figures_count_what_happened() -> None:
    async with echoing(token="secret") as server:
        await refused(server)
        async with dial(server, additional_headers={"Authorization": "Bearer secret"}):
            reply = await ask(server.port, "/metrics", headers={"Authorization": "Bearer secret"})
        assert reply.headers["content-type"].startswith("text/plain")
        found = measured(reply.body)
        assert found["noema_refused_total{token}"] == 1
        assert found["noema_connections_total"] == 1
        assert found["noema_open_connections"] == 1
        assert found["noema_ready"] == 1
        assert found["noema_resident_memory_bytes"] > 1e6
        assert (await ask(server.port, "/metrics")).status == 401


@pytest.mark.parametrize("path", ["/", "/metrics"])
async def test_pages_and_figures_are_for_this_machines_names(path: str) -> None:
    async with echoing(ServerConfig(hosts=("noema.example",))) as server:
        assert (await ask(server.port, path, headers={"Host": "evil.example"})).status == 403
        assert (await ask(server.port, path, headers={"Host": "noema.example"})).status in (200, 404)
        assert (await ask(server.port, "/healthz", headers={"Host": "probe"})).status == 200


async def test_what_is_not_there_is_not_found() -> None:
    async with echoing() as server:
        for path in ("/nothing", "/v1/nothing", "/v1/realtime/nothing", "/../pyproject.toml", "//", "http://evil/"):
            assert (await ask(server.port, path)).status == 404, path


async def test_only_get_and_head_are_served() -> None:
    async with echoing() as server:
        for method in ("DELETE", "OPTIONS", "PATCH"):
            reply = await ask(server.port, "/", method=method)
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


async def test_a_plain_request_for_the_websocket_is_told_to_upgrade() -> None:
    async with echoing() as server:
        reply = await ask(server.port, "/v1/realtime")
        assert reply.status == 426
        await until(lambda: not server.gate.seats_taken)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"additional_headers": {"Authorization": "Bearer wrong"}}, 401),
        ({}, 401),
        ({"host": "evil.example"}, 403),
        ({"additional_headers": {"Authorization": "Bearer secret"}, "origin": "https://evil.example"}, 403),
        ({"additional_headers": {"Authorization": "Bearer secret"}, "origin": "null"}, 403),
    ],
)
async def test_strangers_are_refused_before_the_upgrade(more: dict[str, object], status: int) -> None:
    async with echoing(token="secret") as server:
        if host := more.pop("host", None):
            given = {**UPGRADE, "Host": str(host), "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
            assert (await ask(server.port, "/v1/realtime", headers=given)).status == status
        else:
            assert (await refused(server, **more))[0] == status
        await until(lambda: not server.gate.seats_taken)


async def test_a_page_of_ours_shows_its_token_as_a_subprotocol() -> None:
    async with echoing(token="secret") as server:
        offered = ["realtime", "openai-insecure-api-key.secret"]
        origin = f"http://127.0.0.1:{server.port}"
        async with dial(server, subprotocols=offered, origin=origin) as client:
            assert client.subprotocol == "realtime"
            await client.send("hello")
            assert await client.recv() == "hello"


async def test_nothing_is_compressed() -> None:
    async with echoing() as server, dial(server, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_beyond_capacity_clients_are_told_to_come_back() -> None:
    async with echoing(ServerConfig(max_sessions=2)) as server:
        async with dial(server), dial(server) as second:
            assert await refused(server) == (503, "5")
            await second.close()
            await until(lambda: server.gate.seats_taken < 2)
            async with dial(server) as third:
                await third.send("in")
                assert await third.recv() == "in"
        reply = await ask(server.port, "/metrics")
        assert measured(reply.body)["noema_refused_total{capacity}"] == 1


async def test_a_handshake_that_fails_gives_its_seat_back() -> None:
    async with echoing(ServerConfig(max_sessions=1)) as server:
        assert (await ask(server.port, "/v1/realtime", headers=UPGRADE)).status == 400  # no key
        await until(lambda: not server.gate.seats_taken)
        async with dial(server):
            pass


async def test_those_who_say_nothing_are_few_and_not_for_long() -> None:
    config = ServerConfig(max_handshakes=3, handshake_s=0.5)
    async with echoing(config) as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        turned_away = await ask(server.port, "/healthz")
        assert (turned_away.status, turned_away.headers["retry-after"]) == (503, "5")
        for reader, writer in silent:
            assert await reader.read() == b""  # the server gave up on them
            writer.close()
        assert (await ask(server.port, "/healthz")).status == 200
        assert server.gate.turned_away == 1


async def test_one_byte_a_time_is_too_slow() -> None:
    async with echoing(ServerConfig(handshake_s=0.5)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""  # cut off
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()
        await until(lambda: not server.gate.waiting)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, b"GET /" + b"a" * 20_000, b"\0" * 9000, b"\r\n\r\n"]
)
async def test_what_is_no_http_does_no_harm(sent: bytes) -> None:
    async with echoing() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        writer.write_eof()
        await reader.read()
        writer.close()
        assert (await ask(server.port, "/healthz")).status == 200


@pytest.mark.parametrize("frame", [b"\xff\xff\xff", b"\x83\x80\0\0\0\0", b"\x81\x01x", b"\x88\x80\0\0\0\0"])
@pytest.mark.parametrize("path", ["/v1/realtime", "/healthz"])
async def test_frames_that_do_not_wait_for_an_answer_do_no_harm(
    path: str, frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    async with echoing() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        headers = {"Host": f"127.0.0.1:{server.port}", **UPGRADE, **key}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + frame)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        await until(lambda: not (server.gate.waiting or server.gate.open))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_too_many_headers_are_refused() -> None:
    async with echoing() as server:
        reply = await ask(server.port, "/", headers={f"X-{n}": "y" for n in range(200)})
        assert reply.status == 431


async def test_two_hundred_at_once_are_all_answered() -> None:
    async with echoing(ServerConfig(max_sessions=8)) as server:
        release = asyncio.Event()

        async def one() -> str:
            try:
                async with dial(server, open_timeout=60) as client:
                    await client.send("x")
                    assert await client.recv() == "x"
                    await release.wait()
                    return "in"
            except InvalidStatus as error:
                return f"{error.response.status_code}, again in {error.response.headers['Retry-After']} s"

        tasks = [asyncio.create_task(one()) for _ in range(200)]
        done = 0
        while done < 192:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done = sum(task.done() for task in tasks)
            await asyncio.wait([task for task in tasks if not task.done()], timeout=0.05)
        release.set()
        answers = await asyncio.gather(*tasks)
        assert answers.count("in") == 8
        assert answers.count("503, again in 5 s") == 192
        assert (await ask(server.port, "/healthz")).status == 200


async def test_a_message_that_is_too_long_closes_its_connection_only() -> None:
    async with echoing(ServerConfig(max_message_bytes=65_536)) as server, dial(server) as other:
        client = await dial(server)
        with contextlib.suppress(ConnectionClosed):
            await client.send("x" * (20 << 20))
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009
        await until(lambda: len(server.gate.open) == 1)
        await other.send("still here")
        assert await other.recv() == "still here"


async def test_closing_says_that_the_server_restarts_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with echoing() as server:
        port = server.port
        waiting = await asyncio.open_connection("127.0.0.1", port)
        client = await dial(server)
        await server.close(5)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
        waiting[1].close()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", port)
    assert asyncio.all_tasks() <= before


async def test_while_it_drains_nobody_new_comes_in() -> None:
    async with echoing() as server, dial(server) as old:
        await server.drain()
        assert (await ask(server.port, "/readyz")).body == b"draining\n"
        assert (await ask(server.port, "/healthz")).status == 200
        assert await refused(server) == (503, "5")
        await old.send("still")
        assert await old.recv() == "still"


async def test_a_taken_port_is_told_in_one_line() -> None:
    async with echoing() as server:
        taken = ServerConfig(port=server.port)
        with pytest.raises(UsageError, match=f"port {server.port} is taken.*--port"):
            async with Server(taken, server.access, server.telemetry.__class__(), None):
                pass


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.machine.invalid"])
async def test_a_host_that_is_not_ours_is_told_in_one_line(host: str) -> None:
    with pytest.raises(UsageError, match=f"--host {host}"):
        async with echoing(ServerConfig(host=host)):
            pass


async def test_it_speaks_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    tls = load_tls("self-signed", ["localhost", "127.0.0.1"])
    trusting = ssl.create_default_context(cafile=str(tmp_path / "noema" / "tls" / "certificate.pem"))
    async with echoing(tls=tls.context) as server:
        assert (await ask(server.port, "/healthz", tls=trusting)).status == 200
        url = f"wss://127.0.0.1:{server.port}/v1/realtime"
        origin = f"https://127.0.0.1:{server.port}"
        async with connect(url, ssl=trusting, proxy=None, origin=origin) as client:  # type: ignore[arg-type]
            await client.send("x")
            assert await client.recv() == "x"
        with pytest.raises((ConnectionError, IndexError)):  # plain HTTP is cut off
            await ask(server.port, "/healthz")


async def test_no_log_ever_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with echoing(token="s3cret") as server:
        async with dial(server, subprotocols=["realtime", "openai-insecure-api-key.s3cret"]) as client:
            await client.send("content")
            await client.recv()
        await refused(server, additional_headers={"Authorization": "Bearer n0tit"})
        await ask(server.port, "/?token=s3cret", headers={"Authorization": "Bearer s3cret"})
    ours = "\n".join(
        r.getMessage() for r in caplog.records if "server" in r.name or r.name.startswith(("agent", "noema"))
    )
    assert "connected to /v1/realtime; 1 open" in ours
    for secret in ("s3cret", "n0tit", "token=", "model=", "content"):
        assert secret not in ours


def test_a_reply_is_taken_apart() -> None:
    assert reply_of(b"HTTP/1.1 204 No Content\r\nA-b: c\r\n\r\nd").headers == {"a-b": "c"}
