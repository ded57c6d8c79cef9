"""Pages: files by their paths, with the headers that a browser needs to be safe."""

from pathlib import Path

import pytest
from websockets.datastructures import Headers

from agent.server.pages import Pages


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    web = tmp_path / "web"
    (web / "assets").mkdir(parents=True)
    (web / "index.html").write_text("<!doctype html><p>é</p>", encoding="utf-8")
    (web / "listen.html").write_text("<!doctype html>")
    (web / "assets" / "page.js").write_text("export {};")
    (web / "assets" / "page.css").write_text("p{}")
    (web / ".hidden.js").write_text("no")
    (web / "notes.bak").write_text("no")
    (tmp_path / "secret.txt").write_text("secret")
    return Pages(web)


def headers(**more: str) -> Headers:
    given = Headers({"Host": "desk:8765"})
    for name, value in more.items():
        given[name.replace("_", "-")] = value
    return given


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/listen", "text/html; charset=utf-8"),
        ("/assets/page.js", "text/javascript; charset=utf-8"),
        ("/assets/page.css", "text/css; charset=utf-8"),
    ],
)
def test_files_come_with_their_type(pages: Pages, path: str, type_: str) -> None:
    answer = pages.get(path, headers())
    assert answer is not None
    assert answer.status == 200
    assert answer.headers["Content-Type"] == type_
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/%2e%2e/secret.txt",
        "//secret.txt",
        "/assets",
        "/assets/",
        "/.hidden.js",
        "/notes.bak",
        "",
        "/\0",
    ],
)
def test_there_is_nothing_but_the_files(pages: Pages, path: str) -> None:
    assert pages.get(path, headers()) is None


def test_a_page_may_load_only_from_here(pages: Pages) -> None:
    answer = pages.get("/", headers())
    assert answer is not None
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "microphone=(self)" in answer.headers["Permissions-Policy"]


def test_a_page_that_is_known_is_not_sent_again(pages: Pages) -> None:
    first = pages.get("/", headers())
    assert first is not None
    tag = first.headers["ETag"]
    for shown in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = pages.get("/", headers(If_None_Match=shown))
        assert again is not None
        assert (again.status, again.body) == (304, b"")
        assert again.headers["ETag"] == tag
    other = pages.get("/", headers(If_None_Match='"other"'))
    assert other is not None
    assert other.body == first.body


def test_without_files_there_are_no_pages(tmp_path: Path) -> None:
    assert len(Pages(tmp_path / "missing")) == 0
