"""The web page on the wire: what it sends a server, which a script plays, and what it makes of the answers."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from agent.core.events import Task
from agent.server.sharing import listeners_offer
from tests.agent.scripted_server import ScriptedServer, files_served
from tests.browser import ALLOWED, HEARS, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SPEECH_STARTED: dict[str, Any] = {"audio_start_ms": 100, "item_id": "item_said"}


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as launch:
        yield launch(*HEARS, ALLOWED)


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    with files_served() as url:
        yield url


@pytest.fixture
def page(browser: "Browser", files: str) -> Iterator["Page"]:
    with browser.new_context(base_url=files) as context:
        page = context.new_page()
        page.set_default_timeout(15_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        assert complaints == []


def opened(page: "Page", task: Task = "converse", /, **chosen: str) -> ScriptedServer:
    """The page, where these settings were chosen once, and the server that it has a session with."""
    server = ScriptedServer(
        page, task, ("translate", "transcribe") if task == "translate" else ("converse", "translate")
    )
    visit(page, **chosen)
    page.wait_for_selector("select[name=task]:enabled")
    return server


def visit(page: "Page", **chosen: str) -> None:
    if chosen:
        page.add_init_script(f"localStorage.setItem('noema.settings', {json.dumps(json.dumps(chosen))})")
    page.goto("/index.html")


def type_(page: "Page", text: str) -> None:
    page.get_by_label("Type a sentence").fill(text)
    page.keyboard.press("Enter")


# A session begins


def test_what_nobody_chose_is_as_the_server_has_it(page: "Page") -> None:
    server = opened(page, "translate")
    (first,) = server.of("session.update")
    assert not {"task", "language", "reply_language"} & set(first["session"]["noema"])
    assert page.get_by_label("What Noema does").input_value() == "translate"
    assert page.locator("select[name=task] option").all_inner_texts() == ["interprets", "repeats"]


def test_what_was_chosen_later_is_all_that_is_kept(page: "Page") -> None:
    server = opened(page, "translate")
    page.get_by_label("How").select_option(label="in writing")
    server.until(lambda: len(server.of("session.update")) == 2)
    assert page.evaluate("localStorage.getItem('noema.settings')") == '{"aloud":false}'


def test_a_task_that_the_server_does_not_do_is_forgotten(page: "Page") -> None:
    server = opened(page, "translate", task="converse")
    assert len(server.of("session.update")) == 2
    assert page.get_by_label("What Noema does").input_value() == "translate"
    assert page.get_by_role("alert").is_hidden()


def test_it_is_forgotten_also_where_it_is_too_late_to_ask_for_a_way_back(page: "Page") -> None:
    server = ScriptedServer(page, "translate", ("translate", "transcribe"))
    server.begun = True
    visit(page, task="converse")
    page.wait_for_selector("select[name=task]:enabled")
    assert len(server.of("session.update")) == 3
    assert page.get_by_role("alert").is_hidden()


def test_a_server_that_refuses_everything_is_not_asked_without_end(page: "Page") -> None:
    server = ScriptedServer(page)
    server.unwanted = "invalid_value"
    visit(page)
    page.get_by_role("alert").wait_for()
    assert "no: invalid_value" in page.get_by_role("alert").inner_text()
    assert len(server.of("session.update")) == 3


def test_the_radio_and_the_microphone_follow_the_session_that_is_resumed(page: "Page") -> None:
    server = opened(page)
    page.get_by_role("radio", name="Hold to talk").check()
    server.until(lambda: server.settings.turn_detection is None)
    page.evaluate("localStorage.setItem('noema.settings', '{\"mode\": \"free\"}')")  # chosen in another window
    page.reload()
    page.wait_for_selector("select[name=task]:enabled")
    assert page.get_by_role("radio", name="Hold to talk").is_checked()
    assert page.evaluate("noema.live.talk.mode") == "hold"


# Who gives way to whom


@pytest.mark.parametrize(("task", "gives_way"), [("converse", True), ("translate", False)])
def test_an_interpreter_speaks_on_when_it_hears_speech(page: "Page", task: Task, gives_way: bool) -> None:
    server = opened(page, task)
    server.reply(sound_ms=3000)
    page.wait_for_function("() => noema.live.conversation.lines[0]?.heardMs > 50")
    server.say("input_audio_buffer.speech_started", **SPEECH_STARTED)
    page.wait_for_function("() => noema.live.floor.userSpeaks")
    if gives_way:
        server.until(lambda: server.of("conversation.item.truncate"))
        assert page.evaluate("noema.speaker.queued") == 0
        return
    heard = page.evaluate("noema.live.conversation.lines[0].heardMs")
    page.wait_for_function(f"() => noema.live.conversation.lines[0].heardMs > {heard + 200}")
    assert server.of("conversation.item.truncate") == []


def test_what_was_heard_of_a_reply_under_way_is_told(page: "Page") -> None:
    server = opened(page)
    item = server.reply(sound_ms=3000)
    page.wait_for_function("() => noema.live.conversation.lines[0]?.heardMs > 50")
    page.keyboard.press("Escape")
    server.until(lambda: server.of("conversation.item.truncate"))
    (told,) = server.of("conversation.item.truncate")
    assert len(server.of("response.cancel")) == 1
    assert told["item_id"] == item
    assert 0 < told["audio_end_ms"] < 3000


def test_of_sentences_typed_while_cut_off_the_last_is_answered_too(page: "Page") -> None:
    server = opened(page)
    page.evaluate("noema.live.connection.state = { state: 'waiting', reason: 'cut' }")
    type_(page, "One.")
    type_(page, "Two.")
    server.until(lambda: len(server.of("response.create")) == 2)
    assert server.of("response.cancel") == [], "nobody has been asked yet"
    server.reply()
    server.refuse("conversation_already_has_active_response")
    server.done()
    server.until(lambda: len(server.of("response.create")) == 3)
    server.reply(2)
    server.done(2)
    type_(page, "Three.")
    server.until(lambda: len(server.of("response.create")) == 4)
    assert page.get_by_role("alert").is_hidden()


def test_a_sentence_that_is_being_thought_about_gives_way_to_the_next(page: "Page") -> None:
    server = opened(page)
    type_(page, "One.")
    type_(page, "Two.")
    server.until(lambda: len(server.of("response.create")) == 2)
    kinds = [message["type"] for message in server.told[1:]]
    asked = ["conversation.item.create", "response.create"]
    assert kinds == [*asked, "response.cancel", *asked]


# Listeners


@pytest.mark.parametrize(("host", "here"), [("127.0.0.1", True), ("[::1]", True), ("192.168.1.20", False)])
def test_a_link_that_only_this_machine_can_follow_says_so(page: "Page", host: str, here: bool) -> None:
    server = opened(page)
    session = server.session()
    base = f"http://{host}:8765"
    session["noema"]["listeners"] = listeners_offer("sess_1", "secret", base).model_dump(mode="json")
    server.say("session.updated", session=session)
    page.get_by_role("button", name="Listeners").click()
    page.get_by_role("link", name=base).wait_for()
    assert page.get_by_text("for this machine only").is_visible() is here
    assert page.get_by_role("img", name="QR code").is_visible() is not here


# The connection


def test_a_token_that_no_link_holds_is_told_rather_than_tried_for_ever(page: "Page") -> None:
    page.goto("/index.html#token=abc=")
    page.get_by_role("alert").wait_for()
    assert "The token is not the right one" in page.get_by_role("alert").inner_text()
    assert page.locator("#connection").get_attribute("data-state") == "closed"


def test_who_is_not_let_in_is_told_of_room_and_of_the_token(page: "Page") -> None:
    page.route("**/readyz", lambda route: route.fulfill(body="ready"))
    page.goto("/index.html#token=mine")  # and no websocket is to be had
    told = page.get_by_role("alert")
    told.get_by_text("It may be full").wait_for()
    assert "#token=… (your NOEMA_TOKEN)" in told.inner_text()


def test_a_forgotten_page_gives_its_seat_away_until_somebody_is_there(page: "Page") -> None:
    page.clock.install()
    server = opened(page)
    page.clock.fast_forward(15_000)
    server.socket.close(code=1008, reason="nothing was heard of the client for too long")
    page.wait_for_selector("#connection[data-state=waiting]")
    page.clock.fast_forward(20_000)
    assert "press any key" in page.locator("#connection").inner_text()
    assert len(server.of("session.update")) == 1
    page.keyboard.press("Shift")
    server.until(lambda: len(server.of("session.update")) == 2)
    page.wait_for_selector("#connection[data-state=open]", state="attached")


def test_a_page_that_reads_too_slowly_comes_back_by_itself(page: "Page") -> None:
    server = opened(page)
    server.socket.close(code=1008, reason="the client reads too slowly")
    server.until(lambda: len(server.of("session.update")) == 2)


def test_what_is_typed_while_cut_off_stands_in_the_conversation_and_waits(page: "Page") -> None:
    page.goto("/index.html")  # nothing answers
    page.wait_for_selector("#connection[data-state=waiting]")
    type_(page, "One.")
    type_(page, "Two.")
    waiting = page.locator(".captions .line.waiting")
    waiting.nth(1).wait_for()
    assert waiting.locator(".text").all_inner_texts() == ["One.", "Two."]
    assert "waiting for the connection" in waiting.first.inner_text()
    page.reload()
    waiting.nth(1).wait_for()
    server = ScriptedServer(page)
    page.evaluate("noema.live.connection.connect()")
    server.until(lambda: len(server.of("conversation.item.create")) == 2)
    server.reply()
    waiting.first.wait_for(state="detached")


def test_what_the_network_did_not_take_goes_out_when_it_does(page: "Page") -> None:
    server = opened(page)
    page.evaluate(
        """async () => {
          const { SteadySocket } = await import('/steady_socket.js');
          globalThis.full = true;
          Object.defineProperty(SteadySocket.prototype, 'bufferedAmount', { get: () => (full ? 1e9 : 0) });
        }"""
    )
    type_(page, "One.")
    page.wait_for_function("() => noema.live.connection.queue.waiting === 2")
    page.evaluate("globalThis.full = false")
    server.until(lambda: server.of("response.create"))


# The microphone

STREAMS = """() => {
  globalThis.streams = [];
  const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await given(wanted);
    streams.push(stream);
    return stream;
  };
}"""
LATE = """() => {
  const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const allowed = new Promise((allow) => (globalThis.allow = allow));
  navigator.mediaDevices.getUserMedia = async (wanted) => (await allowed, given(wanted));
}"""
"""A microphone that opens when it is allowed to"""
OPEN = "() => streams.filter((stream) => stream.getTracks().some((track) => track.readyState === 'live')).length"


def test_pressed_twice_the_microphone_is_open_once(page: "Page") -> None:
    opened(page)
    page.evaluate(STREAMS)
    page.evaluate("() => { for (let n = 0; n < 2; n++) document.querySelector('#microphone').click(); }")
    page.wait_for_selector("body[data-microphone=on]")
    assert page.evaluate("streams.length") == 1
    page.evaluate("() => { noema.microphone.stop(); noema.microphone.start(); noema.microphone.stop(); }")
    page.wait_for_function("() => streams.length === 2")
    page.wait_for_function(f"() => ({OPEN})() === 0")
    assert page.evaluate("noema.microphone.open") is False


def test_a_microphone_that_gives_nothing_is_told_until_it_does(page: "Page") -> None:
    opened(page)
    page.evaluate(STREAMS)
    page.get_by_role("button", name="Microphone").click()
    page.wait_for_selector("body[data-microphone=on]")
    page.evaluate("streams[0].getTracks()[0].dispatchEvent(new Event('mute'))")
    page.get_by_role("alert").wait_for(state="visible")
    page.get_by_role("alert").wait_for(state="hidden")


def hold_mode(page: "Page") -> ScriptedServer:
    server = opened(page)
    page.get_by_role("button", name="Microphone").click()
    page.wait_for_selector("body[data-microphone=on]")
    page.get_by_role("radio", name="Hold to talk").check()
    server.until(lambda: server.settings.turn_detection is None)
    page.locator("#microphone").focus()
    return server


def test_a_key_that_comes_up_elsewhere_ends_the_turn_too(page: "Page") -> None:
    server = hold_mode(page)
    page.keyboard.down(" ")
    page.wait_for_function("() => noema.live.talk.held")
    server.until(lambda: len(server.of("input_audio_buffer.append")) > 30)
    page.get_by_label("Type a sentence").focus()
    page.keyboard.up(" ")
    server.until(lambda: server.of("input_audio_buffer.commit"))
    assert page.evaluate("noema.live.talk.held") is False


def test_the_first_press_counts_as_soon_as_the_microphone_is_open(page: "Page") -> None:
    server = opened(page)
    page.get_by_role("radio", name="Hold to talk").check()
    server.until(lambda: server.settings.turn_detection is None)
    page.evaluate(LATE)
    page.locator("#microphone").hover()
    page.mouse.down()
    assert page.locator("#status").inner_text() == "Opening the microphone…"
    page.evaluate("globalThis.allow()")
    page.wait_for_function("() => noema.live.talk.held")
    server.until(lambda: len(server.of("input_audio_buffer.append")) > 30)
    page.mouse.up()
    server.until(lambda: server.of("input_audio_buffer.commit"))
    assert page.evaluate("noema.microphone.open"), "the click that follows closes nothing"


def test_a_first_press_that_is_over_before_the_microphone_is_open_begins_no_turn(page: "Page") -> None:
    server = opened(page)
    page.get_by_role("radio", name="Hold to talk").check()
    server.until(lambda: server.settings.turn_detection is None)
    page.evaluate(LATE)
    page.locator("#microphone").click()
    page.wait_for_selector("body[data-microphone=opening]")
    page.evaluate("globalThis.allow()")
    page.wait_for_selector("body[data-microphone=on]")
    assert page.evaluate("noema.live.talk.held") is False
    assert page.locator("#status").inner_text().startswith("Hold the button")


def test_a_window_that_is_left_ends_the_turn_too(page: "Page") -> None:
    server = hold_mode(page)
    page.keyboard.down(" ")
    server.until(lambda: len(server.of("input_audio_buffer.append")) > 30)
    page.evaluate("dispatchEvent(new Event('blur'))")
    server.until(lambda: server.of("input_audio_buffer.commit"))


def test_a_screen_readers_click_begins_a_turn_and_the_next_ends_it(page: "Page") -> None:
    server = hold_mode(page)
    page.evaluate("document.querySelector('#microphone').click()")
    server.until(lambda: len(server.of("input_audio_buffer.append")) > 30)
    assert page.locator("#microphone").get_attribute("aria-pressed") == "true"
    page.evaluate("document.querySelector('#microphone').click()")
    server.until(lambda: server.of("input_audio_buffer.commit"))


# Sound


def test_sound_that_fails_once_is_tried_again(page: "Page") -> None:
    server = ScriptedServer(page)
    page.add_init_script(
        """
        const { addModule } = AudioWorklet.prototype;
        globalThis.closes = 0;
        const { close } = AudioContext.prototype;
        AudioContext.prototype.close = function () { closes++; return close.call(this); };
        AudioWorklet.prototype.addModule = async function () {
          AudioWorklet.prototype.addModule = addModule;
          throw new Error('not now');
        };
        """
    )
    visit(page)
    page.wait_for_selector("select[name=task]:enabled")
    server.reply(sound_ms=500)
    page.get_by_role("alert").get_by_text("to hear Noema").wait_for()
    assert page.evaluate("[noema.speaker.queued, closes]") == [0, 1]
    page.keyboard.press("Shift")
    server.reply(2, sound_ms=500)
    page.wait_for_function("() => noema.live.conversation.lines[1]?.heardMs >= 500")
    page.get_by_role("alert").wait_for(state="hidden")


def test_sound_that_is_taken_away_is_told_until_it_is_back(page: "Page") -> None:
    server = opened(page)
    server.reply(sound_ms=5000)
    page.wait_for_function("() => noema.live.conversation.lines[0]?.heardMs > 50")
    page.evaluate("import('/sound.js').then(async ({ openSound }) => (await openSound()).suspend())")
    page.get_by_role("alert").get_by_text("to hear Noema").wait_for()
    page.keyboard.press("Shift")
    page.get_by_role("alert").wait_for(state="hidden")


# The path


def test_no_line_runs_through_a_label_and_no_label_through_another(page: "Page") -> None:
    opened(page)
    page.emulate_media(reduced_motion="reduce")
    seen = page.evaluate(
        """() => {
          noema.path.tell = () => ({ who: 'You', text: 'Where is the station?', latency: null, speculated: false });
          const at = [[0, 0], [4, 0.2], [3, 2], [1, 1.5], [0.5, 3], [4, 3.2]];
          noema.path.show(at.map(([x, y], n) => ({ key: `${n}`, item: 'i', index: n, role: n % 2 ? 'assistant' : 'user',
            language: 'eng', nearness: null, x, y })));
          const boxes = [...document.querySelectorAll('.labels text')].map((label) => label.getBBox());
          const within = ({ x, y, width, height }, p) =>
            p.x > x && p.x < x + width && p.y > y + 2 && p.y < y + height - 2;
          let struck = 0;
          for (const path of document.querySelectorAll('.trail path')) {
            for (let far = 0; far < path.getTotalLength(); far++) {
              if (boxes.some((box) => within(box, path.getPointAtLength(far)))) struck++;
            }
          }
          const over = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y + 4 < b.y + b.height - 4
            && b.y + 4 < a.y + a.height - 4;
          return { labels: boxes.length, struck, tangled: boxes.some((a) => boxes.some((b) => a !== b && over(a, b))) };
        }"""
    )
    assert seen["labels"] >= 2
    assert (seen["struck"], seen["tangled"]) == (0, False)


# Small things


def test_a_refusal_is_told_once_an_outage(page: "Page") -> None:
    opened(page)
    refused = "{ detail: { state: 'waiting', reason: 'refused' } }"
    waiting = f"noema.live.connection.dispatchEvent(new CustomEvent('state', {refused}))"
    page.evaluate(waiting)
    page.get_by_role("button", name="Dismiss").click()
    page.evaluate(waiting)
    assert page.get_by_role("alert").is_hidden()


def test_the_keyboard_is_not_lost_with_a_button_that_goes(page: "Page") -> None:
    hold_mode(page)
    page.get_by_role("button", name="Microphone off").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-microphone=off]")
    assert page.evaluate("document.activeElement.id") == "microphone"


def test_what_a_page_of_another_release_kept_is_left_alone(page: "Page") -> None:
    kept = json.dumps({"resume": {"token": "t"}, "lines": 7})
    page.add_init_script(f"sessionStorage.setItem('noema.conversation', {json.dumps(kept)})")
    server = opened(page)
    assert server.of("session.update")[0]["session"]["noema"]["resume"] is True


def test_words_of_a_language_without_spaces_light_up_one_by_one(page: "Page") -> None:
    server = opened(page)
    item = server.reply()
    server.say("response.output_text.delta", response_id="resp_1", item_id=item, delta="我需要一位医生。")
    server.say("response.output_text.delta", response_id="resp_1", item_id=item, delta=" I need (a) doctor!")
    page.get_by_text("doctor!").wait_for()
    words = page.locator(".line .text span").all_text_contents()
    assert len(words) >= 3 + 4
    assert "".join(words) == "我需要一位医生。 I need (a) doctor!"
    assert page.locator(".line .text").get_attribute("dir") == "auto"
