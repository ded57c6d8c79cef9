"""The web page as people use it: a real browser with a wav for a microphone, and the real server with real models."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import ALLOWED, HEARS, REFUSED, chromium, speaking
from tests.end_to_end.served_page import Served, opened, served, write_speech

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser import Launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_log = logging.getLogger(__name__)
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
SOUNDS = "() => noema.speaker.level() > 0.01"
COME_BACK = """(token) => new Promise((resolve) => {
  const socket = new WebSocket(`ws://${location.host}/v1/realtime`);
  const session = { type: "realtime", noema: { resume: { token } } };
  socket.onopen = () => socket.send(JSON.stringify({ type: "session.update", session }));
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (["noema.resumed", "error"].includes(message.type)) resolve(message.error?.code ?? message.type);
  };
})"""
SLOWLY = """() => noema.live.connection.send({ type: "session.update",
  session: { type: "realtime", audio: { output: { speed: 0.25 } } } })"""
STOPWATCH = """() => noema.live.connection.addEventListener("message", ({ detail }) => {
  if (detail.type !== "input_audio_buffer.speech_started" || globalThis.silentAfterMs !== undefined) return;
  const begin = performance.now();
  const look = () => {
    if (noema.speaker.level() < 0.001) globalThis.silentAfterMs = performance.now() - begin;
    else setTimeout(look, 5);
  };
  look();
})"""
"""From the news that somebody speaks until nothing sounds"""
NOTICES = """new MutationObserver(() => console.info(document.querySelector('#notice .title')?.textContent))
  .observe(document, { childList: true, subtree: true })"""
"""A page that tells of its notices by itself"""
SILENT = "() => noema.speaker.level() < 0.001 && noema.speaker.queued === 0"
ALL_HEARD = "() => document.querySelectorAll('.line.assistant .text span:not(.heard)').length === 0"
STOP = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  const shown = [at, at.nextElementSibling, at.closest('form'), at.querySelector('.halo')].filter(Boolean);
  const marked = shown.some((each) => getComputedStyle(each).outlineStyle === 'solid'
    || (each.matches('.halo') && getComputedStyle(each).strokeWidth === '3px'));
  const name = at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent;
  return { id: at.id || at.name || at.className.baseVal || at.localName, marked, name: name.trim() };
}"""
"""Where the keyboard is, whether that can be seen, and what it is called"""
LINES = "() => noema.live.conversation.lines.map(({ role, text }) => [role, text])"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("microphone") / "doctor.wav", "I need a doctor.")


@pytest.fixture(scope="module")
def launch(recording: Path) -> Iterator["Launch"]:
    with chromium() as launch:
        yield launch


@pytest.fixture(scope="module")
def browser(launch: "Launch", recording: Path) -> "Browser":
    """Its microphone is allowed, and somebody speaks into it once it is opened."""
    return launch(*HEARS, ALLOWED, speaking(recording))


@pytest.fixture(scope="module")
def server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("store") / "resume.db") as server:
        yield server


@pytest.fixture
def page(browser: "Browser", server: Served) -> Iterator["Page"]:
    with opened(browser, server.url, viewport=DESKTOP) as page:
        yield page


def lines(page: "Page") -> list[list[str]]:
    return page.evaluate(LINES)  # type: ignore[no-any-return]


def ask(page: "Page", text: str) -> None:
    """Types a sentence and waits for its reply to begin."""
    before = len(lines(page))
    page.get_by_label("Type a sentence").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => noema.live.conversation.lines.length === {before + 2}")
    page.wait_for_function("() => noema.live.conversation.lines.at(-1).text && noema.speaker.queued > 0")


# Talking


def test_someone_speaks_and_hears_the_reply(page: "Page") -> None:
    page.get_by_role("button", name="Microphone").click()
    page.wait_for_selector("body[data-status=hearing]")
    page.wait_for_selector(".line.user abbr")
    # Which words it takes them for is the model's affair, and on a busy machine the fake microphone stutters.
    page.wait_for_function("() => document.querySelector('.line.user .text').textContent.trim().length > 3")
    page.wait_for_function(SOUNDS)
    page.wait_for_selector(".line.assistant .text span")
    page.wait_for_function(ALL_HEARD)
    page.wait_for_selector("body[data-status=listening]")
    assert page.locator("#meter").is_visible()
    assert page.locator(".line.user .meta").inner_text().startswith("You ≈")
    assert "first sound" in page.locator(".line.assistant .meta").inner_text()
    assert page.locator(".point.user").count() >= 1
    page.locator(".point.assistant").first.hover()
    assert page.locator("#card dt", has_text="understand").is_visible()


def test_a_button_that_is_held_says_when_a_turn_begins_and_ends(page: "Page") -> None:
    page.get_by_role("radio", name="Hold to talk").check()
    page.locator("#microphone").focus()
    page.keyboard.press(" ")  # switches the microphone on
    page.wait_for_function("() => noema.microphone.open")
    page.evaluate(
        """() => noema.live.addEventListener('meter', ({ detail: { probability } }) => {
          if (probability > 0.8) globalThis.spoke = true;
          else if (probability < 0.1 && globalThis.spoke) globalThis.done = true;
        })"""
    )
    page.keyboard.down(" ")
    page.wait_for_selector("body[data-status=hearing]")
    page.wait_for_function("() => globalThis.done")
    assert lines(page) == []
    page.keyboard.up(" ")
    page.wait_for_function(SOUNDS)
    page.wait_for_function("() => noema.live.conversation.lines[0].text.length > 3")
    assert [role for role, _ in lines(page)] == ["user", "assistant"]
    page.get_by_role("button", name="Microphone off").click()
    assert page.evaluate("noema.microphone.open") is False


def test_escape_interrupts_and_what_was_not_heard_is_crossed_out(page: "Page") -> None:
    ask(page, "What is your name?")
    page.wait_for_function(SOUNDS)
    page.keyboard.press("Escape")
    page.wait_for_function(SILENT)
    page.wait_for_selector(".line.assistant.cut .text span:not(.heard)")
    heard = page.evaluate("noema.live.conversation.lines.at(-1).heardMs")
    assert 0 <= heard < page.evaluate("noema.live.conversation.lines.at(-1).soundMs")
    ask(page, "Where is the station?")
    page.wait_for_function("() => noema.live.conversation.lines.at(-1).state === 'done'")
    page.wait_for_function(SILENT)
    assert page.locator(".line.cut").count() == 1


def test_speech_interrupts(page: "Page") -> None:
    page.evaluate(SLOWLY)  # so that it still speaks when somebody else does
    ask(page, "Tell me about your family.")
    page.wait_for_function(SOUNDS)
    page.evaluate(STOPWATCH)
    page.get_by_role("button", name="Microphone").click()
    page.wait_for_function("() => globalThis.silentAfterMs !== undefined")
    page.wait_for_function("() => noema.live.conversation.lines[1].state === 'cut'")
    heard, sound = page.evaluate("(({ heardMs, soundMs }) => [heardMs, soundMs])(noema.live.conversation.lines[1])")
    assert 0 < heard < sound
    # A tenth of a second is meant, of which the level that is looked at spans half; a machine may be busy.
    silent_after_ms = page.evaluate("globalThis.silentAfterMs")
    _log.info("silent %.0f ms after the news that somebody speaks", silent_after_ms)  # --log-cli-level=INFO shows it
    assert silent_after_ms < 1000
    page.wait_for_function("() => noema.live.conversation.lines.filter(({ role }) => role === 'user').length === 2")
    page.wait_for_function("() => noema.live.conversation.lines.at(-1).role === 'assistant'")
    page.wait_for_function("() => noema.live.conversation.lines[2].text.length > 3")


def test_one_language_in_and_another_out(page: "Page") -> None:
    page.get_by_label("What Noema does").select_option(label="interprets")
    page.get_by_label("In which language").select_option(label="German")
    ask(page, "I need a doctor.")
    page.wait_for_function("() => noema.live.conversation.lines.at(-1).state === 'done'")
    assert lines(page)[1] == ["assistant", "Ich brauche einen Arzt."]
    assert page.locator(".line.assistant .text").get_attribute("lang") == "de"
    assert "German" in page.locator(".line.assistant .meta").inner_text()


def test_the_language_is_found_out_among_several(page: "Page") -> None:
    page.get_by_label("I speak").select_option(label="one of several…")
    assert page.get_by_role("checkbox", name="English").is_checked()
    page.get_by_role("checkbox", name="German").check()
    page.get_by_role("button", name="Microphone").click()
    page.wait_for_function("() => /English [0-9]+ %/.test(document.querySelector('.line.user .meta')?.textContent)")
    assert page.evaluate("noema.settings.values.language.split(',').sort()") == ["deu", "eng"]


def test_replies_in_writing_are_silent(page: "Page") -> None:
    page.get_by_label("How").select_option(label="in writing")
    page.get_by_label("Type a sentence").fill("Where is the station?")
    page.keyboard.press("Enter")
    page.wait_for_function("() => noema.live.conversation.lines[1]?.state === 'done'")
    assert [role for role, _ in lines(page)] == ["user", "assistant"]
    assert lines(page)[1][1]
    assert page.evaluate("noema.speaker.queued") == 0


# Listeners


def test_two_listen_each_in_a_language_of_their_own(page: "Page", browser: "Browser") -> None:
    page.get_by_role("button", name="Listeners").click()
    page.get_by_role("button", name="Make a link").click()
    page.locator("[data-part=code] svg path").first.wait_for(state="attached")  # shown to other devices only
    link = page.locator("[data-part=link]").get_attribute("href")
    assert link is not None
    page.get_by_role("button", name="Close", exact=True).click()
    german, french = f"{link}&language=deu", f"{link}&language=fra"
    with (
        opened(browser, german, viewport=PHONE) as one,
        opened(browser, french, viewport=DESKTOP, color_scheme="dark") as other,
    ):
        assert "token" not in one.url, "what opens the session is not left to be seen"
        one.get_by_role("button", name="Sound on").click()
        one.wait_for_selector("#connection[data-state=open]", state="attached")
        page.wait_for_function("() => document.querySelector('.count').textContent === '2'")
        ask(page, "I need a doctor.")
        one.get_by_text("Ich brauche einen Arzt.").wait_for()
        other.get_by_text("J'ai besoin d'un médecin.").wait_for()
        one.wait_for_function(SOUNDS)
        one.wait_for_function("() => document.querySelectorAll('.line.agent').length >= 1")  # the reply, too
        assert other.evaluate("noema.speaker.queued") == 0, "nobody asked for sound here"
        assert violations(one) == []
        assert violations(other) == []
        other.get_by_label("Listen in").select_option(label="Spanish")
        page.wait_for_function("() => document.querySelector('[data-part=counts]').textContent.includes('Spanish: 1')")
        one.reload()
        one.wait_for_selector("#connection[data-state=open]", state="attached")
        assert one.get_by_label("Listen in").input_value() == "deu"
        page.get_by_role("button", name="Listeners").click()
        page.get_by_role("button", name="Close it for all").click()
        one.wait_for_selector("#connection:not([data-state=open])", state="attached")


# Coming back


def test_a_reload_goes_on_where_it_was_and_says_nothing_twice(page: "Page") -> None:
    ask(page, "I need a doctor.")
    page.wait_for_function(SILENT)
    ask(page, "Where is the station?")
    page.wait_for_function("() => noema.live.conversation.lines.at(-1).heardMs > 200")
    token = page.evaluate("noema.live.connection.resume.token")
    page.reload()
    page.wait_for_selector("#connection[data-state=open]", state="attached")
    before = lines(page)
    assert [text for role, text in before if role == "user"] == ["I need a doctor.", "Where is the station?"]
    assert page.evaluate("noema.live.connection.resume.token") == token
    assert page.locator(".point").count() >= len(before)
    page.wait_for_function(SOUNDS)  # the rest of what was being said
    page.wait_for_function(SILENT)
    page.wait_for_function(ALL_HEARD)
    assert lines(page) == before
    ask(page, "Good night.")
    assert len(lines(page)) == len(before) + 2


def test_after_a_reload_the_rest_sounds_once_somebody_touches_the_page(launch: "Launch", server: Served) -> None:
    with opened(launch(), server.url, viewport=DESKTOP) as page:
        page.add_init_script(NOTICES)
        page.evaluate(SLOWLY)
        ask(page, "Tell me about your family.")
        page.wait_for_function("() => noema.live.conversation.lines.at(-1).heardMs > 200")
        # Whatever playwright asks of a page counts as a gesture: until it tells of it by itself, nothing is asked.
        with page.expect_console_message(lambda said: said.text.startswith("Press any key, or tap anywhere")):
            page.reload()
        assert page.evaluate("noema.speaker.sounding") is False
        page.keyboard.press("Shift")
        page.wait_for_function(SOUNDS)
        page.get_by_role("alert").wait_for(state="hidden")


def test_a_server_that_is_killed_and_comes_back_has_lost_nothing(browser: "Browser", tmp_path: Path) -> None:
    with ExitStack() as servers:
        server = servers.enter_context(served(tmp_path / "resume.db"))
        page = servers.enter_context(opened(browser, server.url, viewport=DESKTOP))
        ask(page, "I need a doctor.")
        page.wait_for_function(SILENT)
        said, token = lines(page), page.evaluate("noema.live.connection.resume.token")
        server.kill()
        page.wait_for_selector("#connection[data-state=waiting]")
        page.get_by_label("Type a sentence").fill("Where is the station?")
        page.keyboard.press("Enter")
        servers.enter_context(served(tmp_path / "resume.db", port=server.port))
        page.wait_for_function("() => noema.live.conversation.lines.at(-1).text && noema.speaker.queued > 0")
        assert lines(page)[:2] == said
        assert lines(page)[2] == ["user", "Where is the station?"]
        assert len(lines(page)) == 4
        assert page.evaluate("noema.live.connection.resume.token") == token


def test_a_conversation_is_in_one_window_at_a_time(page: "Page") -> None:
    ask(page, "I need a doctor.")
    page.wait_for_function(SILENT)
    with page.expect_popup() as opening:
        page.evaluate("void window.open(location.href)")  # which takes the tab's memory along
    other = opening.value
    page.wait_for_selector("#connection[data-state=elsewhere]")
    other.wait_for_selector("#connection[data-state=open]", state="attached")
    assert lines(other) == lines(page)
    page.get_by_role("button", name="Try now").click()
    page.wait_for_selector("#connection[data-state=open]", state="attached")
    other.wait_for_selector("#connection[data-state=elsewhere]")


def test_what_was_chosen_of_another_server_is_forgotten(browser: "Browser", server: Served) -> None:
    chosen = {"name": "noema.settings", "value": '{"language": "nld", "task": "translate"}'}
    state = {"origins": [{"origin": server.url, "localStorage": [chosen]}]}
    with opened(browser, server.url, storage_state=state) as page:
        page.wait_for_function("() => noema.live.connection.resume")
        assert page.get_by_label("I speak").input_value() == "eng"
        assert page.get_by_label("What Noema does").input_value() == "converse"
        assert page.evaluate("localStorage.getItem('noema.settings')") is None
        assert page.get_by_role("alert").is_hidden()


def test_a_new_conversation_begins_empty(page: "Page") -> None:
    ask(page, "I need a doctor.")
    token = page.evaluate("noema.live.connection.resume.token")
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("button", name="Begin anew").click()
    page.wait_for_function(f"() => ![null, undefined, '{token}'].includes(noema.live.connection.resume?.token)")
    assert lines(page) == []
    assert page.locator(".point").count() == 0
    page.wait_for_function(SILENT)
    assert page.evaluate(COME_BACK, token) == "noema_resume_unknown"  # the old one is forgotten


# Trouble


def test_a_microphone_that_is_refused_is_explained_and_typing_goes_on(launch: "Launch", server: Served) -> None:
    with opened(launch(*HEARS, REFUSED), server.url, viewport=PHONE) as page:
        page.get_by_role("button", name="Microphone").click()
        notice = page.get_by_role("alert")
        notice.wait_for()
        assert "told not to let this page hear you" in notice.inner_text()
        assert "Firefox" in notice.inner_text()
        ask(page, "I need a doctor.")


def test_a_page_without_https_says_how_to_get_it(launch: "Launch", server: Served) -> None:
    # An address that is not loopback is not trusted with a microphone; here it leads to loopback all the same.
    elsewhere = server.url.replace("127.0.0.1", "10.1.2.3")
    mapped = "--host-resolver-rules=MAP 10.1.2.3 127.0.0.1"
    with opened(launch(*HEARS, ALLOWED, mapped), elsewhere, viewport=PHONE) as page:
        page.get_by_role("button", name="Microphone").click()
        notice = page.get_by_role("alert")
        notice.wait_for()
        assert "not on HTTPS" in notice.inner_text()
        assert "--tls self-signed" in notice.inner_text()
        assert f"http://localhost:{server.port}" in notice.inner_text()
        ask(page, "I need a doctor.")
        page.wait_for_function(SOUNDS)  # without worklets, which such pages have none of
        page.wait_for_function(SILENT)
        page.wait_for_function(ALL_HEARD)
        ask(page, "Where is the station?")
        page.wait_for_function(SOUNDS)
        page.keyboard.press("Escape")
        page.wait_for_function(SILENT)
        page.wait_for_selector(".line.assistant.cut .text span:not(.heard)")


# For everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nobody_is_left_out(browser: "Browser", server: Served, scheme: str, size: dict[str, int]) -> None:
    with opened(browser, server.url, viewport=size, color_scheme=scheme, reduced_motion="reduce") as page:
        assert violations(page) == []
        ask(page, "I need a doctor.")
        page.keyboard.press("Escape")
        page.get_by_role("radio", name="Hold to talk").check()
        page.get_by_role("button", name="Microphone").click()
        page.get_by_role("button", name="Microphone off").wait_for()
        page.evaluate("noema.live.dispatchEvent(new CustomEvent('warning', { detail: 'Something is not as it was.' }))")
        assert violations(page) == []
        page.locator("summary").click()
        page.get_by_role("button", name="Listeners").click()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def violations(page: "Page") -> list[str]:
    """What axe-core finds that is serious."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_every_control_is_reached_by_keys_seen_and_named(page: "Page") -> None:
    ask(page, "I need a doctor.")
    page.wait_for_function("() => noema.live.conversation.lines.at(-1).state === 'done'")
    stops: list[dict[str, Any]] = []
    while len(stops) < 2 or stops[-1] != stops[0]:  # all the way round
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP)
        if stop is not None:  # else the browser's own controls have their turn
            stops.append(stop)
        assert len(stops) < 40
    assert [stop for stop in stops if not (stop["marked"] and stop["name"])] == []
    reached = {stop["id"] for stop in stops}
    assert {
        "listeners",
        "anew",
        "theme",
        "language",
        "task",
        "reply",
        "aloud",
        "microphone",
        "mode",
        "words",
    } <= reached
    assert {"summary", "captions"} <= reached
    assert any("point" in each for each in reached)


def test_arrow_keys_walk_along_the_path(page: "Page") -> None:
    ask(page, "I need a doctor.")
    page.wait_for_function("() => document.querySelectorAll('.point').length >= 2")
    page.locator(".point.latest").focus()
    assert page.locator("#card .who").inner_text().startswith("Noema")
    page.keyboard.press("Home")
    assert "I need a doctor." in page.locator("#card").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#card .who").inner_text().startswith("Noema")
    page.locator("summary").click()
    page.locator("#path-list li", has_text="«I need a doctor.» English").wait_for()
