"""One file from a real server on this machine, which breaks off, lies, stalls and changes its mind."""

import hashlib
import io
import random
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from agent.errors import FetchError
from agent.fetching.fetch import CHECKPOINT, SENTENCEPIECE, Content, Download, FetchOptions
from agent.fetching.partial_file import Fetched, PartialFile, Version, begun_bytes, finished, forget
from tests import file_server
from tests.file_server import FileServer

GOLDEN = Path(__file__).parents[2] / "golden" / "sonar"
CONTENT = (GOLDEN / "sonar_text_encoder.pt").read_bytes()
TOKENIZER = (GOLDEN / "tokenizer.model").read_bytes()
NAME = "encoder.pt"
QUICK = FetchOptions(timeout_seconds=5, retries=3, first_wait_seconds=0, spare_bytes=0)
IMPATIENT = FetchOptions(timeout_seconds=0.3, retries=3, first_wait_seconds=0, spare_bytes=0)


class Watcher:
    """Remembers what a download tells."""

    def __init__(self) -> None:
        self.tries: list[tuple[int, int | None]] = []
        self.advance = 0
        self.messages: list[str] = []

    def began(self, done: int, total: int | None) -> None:
        self.tries.append((done, total))

    def advanced(self, count: int) -> None:
        self.advance += count

    def said(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({NAME: CONTENT, "tokenizer.model": TOKENIZER}) as running:
        yield running


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


Fetch = Callable[..., Fetched]


@pytest.fixture
def fetch(server: FileServer, watcher: Watcher, tmp_path: Path) -> Fetch:
    """Fetches the file; what it must come to is checked here."""

    def run(options: FetchOptions = QUICK, content: Content = CHECKPOINT, name: str = NAME) -> Fetched:
        target = tmp_path / name
        fetched = Download(f"{server.address}/SONAR/{name}", target, content, watcher, options).run()
        expected = server.files[name]
        assert target.read_bytes() == expected
        assert fetched == Fetched(len(expected), hashlib.sha256(expected).hexdigest())
        assert begun_bytes(target) == 0
        return fetched

    return run


def test_a_file_comes_whole_with_its_hash(fetch: Fetch, watcher: Watcher) -> None:
    fetch()
    assert watcher.tries == [(0, len(CONTENT))]
    assert (watcher.advance, watcher.messages) == (len(CONTENT), [])


def test_a_sentencepiece_model_comes(fetch: Fetch) -> None:
    fetch(content=SENTENCEPIECE, name="tokenizer.model")


def test_what_breaks_off_goes_on_where_it_stopped(fetch: Fetch, server: FileServer, watcher: Watcher) -> None:
    server.answers[NAME] = [file_server.breaking(30_000)] * 3
    fetch()
    assert server.starts(NAME) == [0, 30_000, 60_000, 90_000]
    assert watcher.advance == len(CONTENT)
    assert "the connection ended after 30.0 kB of 115.0 kB; trying again" in watcher.messages[0]
    assert server.seen[1].headers["If-Range"] == server.etags[NAME]


def test_more_breaks_than_retries_are_fine_as_long_as_each_try_gets_further(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.breaking(10_000)] * 11
    fetch()
    assert len(server.seen) == 12


def test_tries_that_get_no_further_end(fetch: Fetch, server: FileServer, tmp_path: Path) -> None:
    server.answers[NAME] = [file_server.breaking(50_000)] + [file_server.breaking(0)] * 9
    with pytest.raises(FetchError, match=r"encoder\.pt: the connection ended .*; tried 4 times; run it again"):
        fetch()
    assert begun_bytes(tmp_path / NAME) == 50_000


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.breaking(50_000, ranges=False)] * 9
    with pytest.raises(FetchError, match="tried 4 times"):
        fetch()


def test_another_run_resumes(fetch: Fetch, server: FileServer, watcher: Watcher) -> None:
    server.answers[NAME] = [file_server.breaking(70_000), *[file_server.status(503)] * 9]
    with pytest.raises(FetchError, match="answers 503"):
        fetch()
    server.answers.clear()
    fetch()
    assert server.starts(NAME)[-1] == 70_000
    assert watcher.tries[-1] == (70_000, len(CONTENT))


def test_a_complete_part_needs_no_network(fetch: Fetch, server: FileServer, tmp_path: Path) -> None:
    """A process that died between the last byte and the new name."""
    part = PartialFile(tmp_path / NAME)
    part.start_over(Version(server.etags[NAME], "", len(CONTENT)))
    with part.growing() as append:
        append(CONTENT)
    fetch()
    assert server.seen == []


def test_a_server_that_ignores_ranges_starts_over(fetch: Fetch, server: FileServer, watcher: Watcher) -> None:
    server.answers[NAME] = [file_server.breaking(60_000), file_server.ignoring_ranges]
    fetch()
    assert watcher.tries == [(0, len(CONTENT)), (0, len(CONTENT))]


def test_a_file_that_changes_in_between_starts_over(fetch: Fetch, server: FileServer) -> None:
    def change(request: file_server.Request) -> None:
        server.files[NAME], server.etags[NAME] = other, '"another"'
        file_server.honest(request)

    other = (GOLDEN / "sonar_text_decoder.pt").read_bytes()
    server.answers[NAME] = [file_server.breaking(60_000), change]
    fetch()


def test_a_server_that_resumes_another_version_is_not_believed(fetch: Fetch, server: FileServer) -> None:
    """It has not looked at If-Range, but its ETag tells."""

    def mix_up(request: file_server.Request) -> None:
        rest = CONTENT[60_000:]
        place = f"bytes 60000-{len(CONTENT) - 1}/{len(CONTENT)}"
        request.head(206, {"Content-Range": place, "ETag": '"another"', "Content-Length": str(len(rest))})
        request.handler.end_headers()
        request.send(rest)

    server.answers[NAME] = [file_server.breaking(60_000), mix_up]
    fetch()
    assert server.starts(NAME) == [0, 60_000, 0]


def test_what_nobody_can_validate_starts_over(fetch: Fetch, server: FileServer) -> None:
    """A weak tag, and no date: two different contents may bear it (RFC 9110, 8.8.1)."""
    server.etags[NAME] = 'W/"1"'
    server.answers[NAME] = [file_server.breaking(60_000)]
    fetch()
    assert server.starts(NAME) == [0, 0]


def test_a_range_that_cannot_be_satisfied_starts_over(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.breaking(60_000), file_server.status(416)]
    fetch()
    assert server.starts(NAME) == [0, 60_000, 0]


@pytest.mark.parametrize("notes", ["", "no JSON", "[]", '{"etag": 1}', '{"etag": "x", "modified": "", "total": 9}'])
def test_a_part_without_fitting_notes_starts_over(fetch: Fetch, server: FileServer, tmp_path: Path, notes: str) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    (tmp_path / f"{NAME}.fetch.json").write_text(notes)
    fetch()
    assert server.starts(NAME) == [0]


def test_a_length_promised_too_long_is_a_break(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.promising(len(CONTENT) + 10)]
    fetch()
    assert server.starts(NAME) == [0, len(CONTENT), 0]


def test_more_than_was_promised_is_an_error(fetch: Fetch, server: FileServer, tmp_path: Path) -> None:
    server.answers[NAME] = [file_server.promising(90_000)]
    with pytest.raises(FetchError, match="sent more than the 90,000 bytes it promised"):
        fetch()
    assert begun_bytes(tmp_path / NAME) == 0


def test_a_server_that_does_not_hang_up_is_fine(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.staying]
    fetch(IMPATIENT)


def test_chunks_without_a_length_are_fine(fetch: Fetch, server: FileServer, watcher: Watcher) -> None:
    server.answers[NAME] = [file_server.chunked()]
    fetch()
    assert watcher.tries == [(0, None)]


def test_chunks_that_break_off_go_on(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.chunked(3)]
    fetch()
    assert len(server.starts(NAME)) == 2
    assert server.starts(NAME)[1] > 0


def test_an_answer_whose_end_nobody_marks_is_refused(fetch: Fetch, server: FileServer) -> None:
    def endless(request: file_server.Request) -> None:
        request.head(200, {})
        request.handler.end_headers()
        request.send(CONTENT)
        request.handler.close_connection = True

    server.answers[NAME] = [endless]
    with pytest.raises(FetchError, match="does not say how long it is"):
        fetch()


def test_a_web_page_is_no_checkpoint(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.replying(b"<!DOCTYPE html><html>Please log in</html>")]
    with pytest.raises(FetchError, match=r"sent a web page, not a checkpoint; log in to your network") as raised:
        fetch()
    assert f"{server.address}/SONAR/{NAME}" in str(raised.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<html>", "a web page, not a SentencePiece model; log in"),
        (b"", "nothing, not a SentencePiece model; check the address"),
        (CONTENT, r"begins with b'PK.*', not a SentencePiece model; check the address"),
    ],
)
def test_what_is_no_sentencepiece_model_is_refused(fetch: Fetch, server: FileServer, body: bytes, told: str) -> None:
    server.answers["tokenizer.model"] = [file_server.replying(body)]
    with pytest.raises(FetchError, match=told):
        fetch(content=SENTENCEPIECE, name="tokenizer.model")


def test_a_web_page_does_not_cost_what_has_come(fetch: Fetch, server: FileServer) -> None:
    """A hotel's log-in page, in the middle of a large file."""
    server.answers[NAME] = [file_server.breaking(60_000), file_server.replying(b"<html>Welcome to the hotel</html>")]
    with pytest.raises(FetchError, match="web page"):
        fetch()
    fetch()
    assert server.starts(NAME) == [0, 60_000, 60_000]


def test_something_packed_is_refused(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.replying(CONTENT, "x/y", **{"Content-Encoding": "gzip"})]
    with pytest.raises(FetchError, match=r"packed \(gzip\)"):
        fetch()


def test_a_missing_file_is_said_at_once(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.status(404)]
    with pytest.raises(FetchError, match=r"answers 404 Not Found for http.*/SONAR/encoder.pt; check the address"):
        fetch()
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(fetch: Fetch, server: FileServer, code: int) -> None:
    server.answers[NAME] = [file_server.status(code)]
    fetch()
    assert len(server.seen) == 2


def test_the_server_may_say_how_long_to_wait(fetch: Fetch, server: FileServer, watcher: Watcher) -> None:
    past = formatdate(time.time() - 60, usegmt=True)
    server.answers[NAME] = [file_server.status(429, Retry_After="0"), file_server.status(503, Retry_After=past)]
    fetch(FetchOptions(first_wait_seconds=60, spare_bytes=0))
    assert all("trying again in 0 s" in message for message in watcher.messages)


def test_nobody_waits_for_an_hour(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.status(429, Retry_After="3600")]
    with pytest.raises(FetchError, match="asks to wait 3600 seconds; run it again then"):
        fetch()


def test_silence_is_a_break(fetch: Fetch, server: FileServer, watcher: Watcher) -> None:
    server.answers[NAME] = [file_server.stalling(60_000)]
    fetch(IMPATIENT)
    assert server.starts(NAME) == [0, 60_000]
    assert "127.0.0.1 has been silent for 0.3 s" in watcher.messages[0]


def test_slow_is_no_break(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.trickling(pieces=20, pause_seconds=0.04)]
    fetch(IMPATIENT)
    assert len(server.seen) == 1


def test_waits_grow(fetch: Fetch, server: FileServer, watcher: Watcher) -> None:
    server.answers[NAME] = [file_server.status(500)] * 4
    options = FetchOptions(retries=4, first_wait_seconds=0.01, longest_wait_seconds=0.03, spare_bytes=0)
    start = time.monotonic()
    fetch(options)
    assert time.monotonic() - start >= 0.01 + 0.02 + 0.03 + 0.03


def test_a_full_disk_is_said_before_anything_is_written(
    fetch: Fetch, server: FileServer, watcher: Watcher, tmp_path: Path
) -> None:
    options = FetchOptions(spare_bytes=10_000, free_bytes=lambda folder: 120_000)
    with pytest.raises(FetchError, match=r"has 120\.0 kB left, but 115\.0 kB are to come and 10\.0 kB shall stay free"):
        fetch(options)
    assert begun_bytes(tmp_path / NAME) == 0
    assert watcher.tries == []


def test_only_what_is_missing_needs_room(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.breaking(60_000), *[file_server.status(500)] * 4]
    with pytest.raises(FetchError, match="500"):
        fetch()
    fetch(FetchOptions(spare_bytes=10_000, free_bytes=lambda folder: 66_000))


@pytest.mark.parametrize("damaged", [CONTENT[:60_000] + b"?!" + CONTENT[60_002:], CONTENT[:-100]], ids=["bits", "end"])
def test_a_damaged_checkpoint_is_dropped(fetch: Fetch, server: FileServer, tmp_path: Path, damaged: bytes) -> None:
    """Whatever has damaged it, the zip file's own checksums know."""
    server.files[NAME] = damaged
    with pytest.raises(FetchError, match="came damaged"):
        fetch()
    assert not (tmp_path / NAME).exists()
    server.files[NAME] = CONTENT
    fetch()


def test_an_older_checkpoint_is_a_pickle(fetch: Fetch, server: FileServer) -> None:
    server.files[NAME] = b"\x80\x02}q\x00." + bytes(1000)
    fetch()


def test_pieces_larger_than_any_buffer_come_right(fetch: Fetch, server: FileServer) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("weights", random.Random(0).randbytes(3_000_000))
    server.files[NAME] = packed.getvalue()
    server.answers[NAME] = [file_server.breaking(1_500_001)]
    fetch()
    assert server.starts(NAME) == [0, 1_500_001]


def test_nobody_there_is_said_after_two_tries(tmp_path: Path, watcher: Watcher) -> None:
    with FileServer({}) as gone:
        address = gone.address
    told = r"the connection to 127\.0\.0\.1 failed \(Connection refused\); tried 2 times; check the address"
    with pytest.raises(FetchError, match=told):
        Download(f"{address}/{NAME}", tmp_path / NAME, CHECKPOINT, watcher, QUICK).run()


@pytest.mark.parametrize(("code", "tries"), [(socket.EAI_NONAME, 2), (socket.EAI_AGAIN, 4)])
def test_a_name_that_nobody_has_is_asked_for_twice(
    tmp_path: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, code: int, tries: int
) -> None:
    """A name server that does not answer just now is another matter."""

    def unknown(*asked: object, **how: object) -> None:
        raise socket.gaierror(code, "as a name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match=rf"\(as a name server answers\); tried {tries} times"):
        Download(f"https://mirror.example/{NAME}", tmp_path / NAME, CHECKPOINT, watcher, QUICK).run()


def test_a_server_that_goes_away_is_given_time_to_come_back(tmp_path: Path, watcher: Watcher) -> None:
    with FileServer({NAME: CONTENT}) as server:
        server.answers[NAME] = [closing_down(server)]
        with pytest.raises(FetchError, match=r"Connection refused\); tried 4 times; run it again later to resume"):
            Download(f"{server.address}/{NAME}", tmp_path / NAME, CHECKPOINT, watcher, QUICK).run()


def test_another_file_is_dropped(fetch: Fetch, server: FileServer, tmp_path: Path) -> None:
    other = Content("a checkpoint", CHECKPOINT.beginnings, lambda path: f"of {path.stat().st_size} bytes")
    with pytest.raises(FetchError, match=rf"{NAME} sent another file \(of {len(CONTENT)} bytes\), which was dropped"):
        fetch(content=other)
    assert begun_bytes(tmp_path / NAME) == 0
    assert not (tmp_path / NAME).exists()
    fetch()


def test_redirects_are_followed_on_this_machine(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.status(302, Location="/elsewhere/encoder.pt")]
    fetch()
    assert len(server.seen) == 2


def test_redirects_to_plain_http_are_not(fetch: Fetch, server: FileServer) -> None:
    server.answers[NAME] = [file_server.status(302, Location="http://mirror.invalid/encoder.pt?key=secret")]
    with pytest.raises(FetchError, match=r"leads to http://mirror\.invalid/encoder\.pt, which is not https") as raised:
        fetch()
    assert "secret" not in str(raised.value)


def test_a_password_goes_to_its_server_and_into_no_message(
    server: FileServer, watcher: Watcher, tmp_path: Path
) -> None:
    server.answers[NAME] = [file_server.status(500), file_server.status(403)]
    url = f"{server.address}/{NAME}?key=secret".replace("http://", "http://me:pass%40word@")
    with pytest.raises(FetchError, match="answers 403") as raised:
        Download(url, tmp_path / NAME, CHECKPOINT, watcher, QUICK).run()
    assert server.seen[0].headers["Authorization"] == "Basic bWU6cGFzc0B3b3Jk"
    told = str(raised.value) + "".join(watcher.messages)
    assert not any(word in told for word in ("secret", "pass", "me:"))


def closing_down(server: FileServer) -> file_server.Answer:
    """Sends half a file and takes no further connections."""

    def answer(request: file_server.Request) -> None:
        server.refuse()
        request.send(request.begin()[:60_000])
        request.handler.close_connection = True

    return answer


def test_notes_know_a_finished_file_until_they_are_forgotten(fetch: Fetch, tmp_path: Path) -> None:
    fetched = fetch()
    target = tmp_path / NAME
    assert finished(target) == fetched
    target.write_bytes(CONTENT[:-1] + b"!")
    assert finished(target) is None
    target.write_bytes(CONTENT)
    forget(target)
    assert finished(target) is None
    assert {path.name for path in tmp_path.iterdir()} == {NAME}
