"""The web page's modules without the page: what is pure in them, run in a real browser."""

import base64
import mimetypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soxr

from agent.server.pages import WEB
from tests.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

ORIGIN = "http://localhost:1"
"""Nothing listens there: the files come from the folder"""
WORKLET = """
  globalThis.AudioWorkletProcessor ??= class { port = { said: [], postMessage(message) { this.said.push(message); } } };
  globalThis.registered ??= {};
  globalThis.registerProcessor ??= (name, processor) => { registered[name] = processor; };
  globalThis.currentTime = 0;
  await import('/worklet.js');
"""
BYTES = "(text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))"


@pytest.fixture(scope="module")
def page() -> Iterator["Page"]:
    with chromium() as launch:
        page = launch().new_page()
        page.route("**/*", _from_folder)
        page.goto(f"{ORIGIN}/empty")
        yield page


def _from_folder(route: "Route") -> None:
    file = WEB / route.request.url.removeprefix(f"{ORIGIN}/")
    if file.is_file():
        route.fulfill(body=file.read_bytes(), content_type=mimetypes.guess_type(file.name)[0])
    else:
        route.fulfill(body="<!doctype html>", content_type="text/html")


def run(page: "Page", body: str, argument: object = None) -> Any:
    """Runs the body of an async function of `given`."""
    return page.evaluate(f"async (given) => {{ {body} }}", argument)


def packed(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


# What was sent is sent again after a cut, but for what arrived


def test_after_any_number_of_cuts_the_server_has_everything_once_and_in_order(page: "Page") -> None:
    histories = run(
        page,
        """
        const { ResumeQueue } = await import('/resume_queue.js');
        const { fromBase64 } = await import('/base64.js');
        let seed = 1;
        const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
        return Array.from({ length: 100 }, () => {
          let queue = new ResumeQueue();
          const meant = [], got = [];
          let samples = 0, events = 0, next = 0;
          const give = () => {
            if (random(2)) {
              const audio = Uint8Array.from({ length: 2 * (1 + random(5)) }, () => next++ % 256);
              queue.addAudio(audio);
              meant.push(...audio);
            } else {
              queue.addEvent({ type: 'x', number: next });
              meant.push(`event ${next++}`);
            }
          };
          const arrive = (message) => {
            if (message.type === 'x') { events++; got.push(`event ${message.number}`); return; }
            const audio = fromBase64(message.audio);
            samples += audio.length / 2;
            got.push(...audio);
          };
          for (let cut = 0; cut < 8; cut++) {
            for (let n = random(6); n; n--) give();
            const sent = queue.take();
            const arrived = cut === 7 ? sent.length : random(sent.length + 1);
            sent.slice(0, arrived).forEach(arrive);
            const half = sent[arrived];
            if (half?.audio) { // of the last piece, some samples were kept
              const audio = fromBase64(half.audio).subarray(0, 2);
              samples += 1;
              got.push(...audio);
            }
            if (random(2)) queue = ResumeQueue.fromJSON(JSON.parse(JSON.stringify(queue))); // the page is loaded again
            if (random(2)) give(); // while there is no connection
            queue.resumed(samples, events);
          }
          queue.take().forEach(arrive);
          return { meant, got };
        });
        """,
    )
    assert len(histories) == 100
    for history in histories:
        assert history["got"] == history["meant"]


def test_the_queue_is_bounded_and_what_is_left_is_numbered_as_the_server_counts(page: "Page") -> None:
    seen = run(
        page,
        """
        const { ResumeQueue, KEPT_SAMPLES, KEPT_EVENTS } = await import('/resume_queue.js');
        const queue = new ResumeQueue();
        queue.begin({ type: 'session.update' });
        queue.take();
        const second = new Uint8Array(48_000);
        for (let n = 0; n < 100; n++) queue.addAudio(second); // nobody takes it: the connection is cut
        for (let n = 0; n < KEPT_EVENTS + 10; n++) queue.addEvent({ type: 'x', n });
        const kept = queue.toJSON().entries.length;
        queue.resumed(0, 1);
        const sent = queue.take();
        queue.resumed(24_000, 3); // of those it has one second and two events
        const again = queue.take();
        return { kept, seconds: KEPT_SAMPLES / 24_000, sent: sent.length, first: sent.find((m) => m.type === 'x').n,
                 again: again.length, next: again.find((m) => m.type === 'x').n };
        """,
    )
    assert seen["seconds"] == 30
    assert seen["sent"] == 30 + 500
    assert seen["first"] == 10
    assert seen["again"] == 29 + 498
    assert seen["next"] == 12
    assert seen["kept"] == 10 + 500, "storage takes ten seconds of sound"


def test_a_new_session_is_told_only_what_was_typed_and_never_sent(page: "Page") -> None:
    sent = run(
        page,
        """
        const { ResumeQueue } = await import('/resume_queue.js');
        const queue = new ResumeQueue();
        queue.begin({ type: 'session.update' });
        queue.addEvent({ type: 'conversation.item.create', item: 'sent before' });
        queue.take();
        queue.addAudio(new Uint8Array(960));
        queue.addEvent({ type: 'conversation.item.truncate', item_id: 'of the old session' });
        queue.addEvent({ type: 'conversation.item.create', item: 'typed while cut off' });
        queue.addEvent({ type: 'response.create' });
        queue.begin({ type: 'session.update', again: true });
        return queue.take().map(({ type, item, again }) => [type, item ?? again ?? null]);
        """,
    )
    assert sent == [
        ["session.update", True],
        ["conversation.item.create", "typed while cut off"],
        ["response.create", None],
    ]


def test_a_new_session_is_not_asked_to_answer_what_was_spoken_in_the_old(page: "Page") -> None:
    sent = run(
        page,
        """
        const { ResumeQueue } = await import('/resume_queue.js');
        const queue = new ResumeQueue();
        queue.addEvent({ type: 'conversation.item.create', item: 'typed' });
        queue.addEvent({ type: 'response.create' });
        queue.addAudio(new Uint8Array(960));
        queue.addEvent({ type: 'input_audio_buffer.commit' });
        queue.addEvent({ type: 'response.create' });
        queue.begin({ type: 'session.update' });
        return queue.take().map(({ type }) => type);
        """,
    )
    assert sent == ["session.update", "conversation.item.create", "response.create"]


# Numbers


def test_every_half_precision_number_is_read_as_numpy_reads_it(page: "Page") -> None:
    halves = np.arange(65536, dtype="<u2")
    read = run(
        page,
        "const { float16ToFloat, fromBase64, toBase64 } = await import('/base64.js');"
        "return toBase64(new Uint8Array(float16ToFloat(fromBase64(given)).buffer));",
        packed(halves),
    )
    expected = halves.view("<f2").astype(np.float32)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(read), "<f4"), expected)


def test_the_plane_is_that_of_the_singular_value_decomposition(page: "Page") -> None:
    random = np.random.default_rng(0)
    concepts = random.normal(size=(40, 96)) @ np.diag(0.93 ** np.arange(96))
    units = concepts / np.linalg.norm(concepts, axis=1, keepdims=True)
    centred = units - units.mean(axis=0)
    _, values, axes = np.linalg.svd(centred)
    found = run(
        page,
        "const { plane } = await import('/pca.js'); const vectors = given.map((row) => Float32Array.from(row));"
        "const { place, explained } = plane(vectors); return { places: vectors.map(place), explained };",
        concepts.tolist(),
    )
    places, expected = np.array(found["places"]), centred @ axes[:2].T
    signs = np.sign((places * expected).sum(axis=0))
    np.testing.assert_allclose(places * signs, expected, atol=1e-5)
    assert found["explained"] == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_few_and_equal_concepts_have_places_too(page: "Page", count: int) -> None:
    places = run(
        page,
        "const { plane } = await import('/pca.js'); const one = Float32Array.from({ length: 8 }, (_, n) => n);"
        "const vectors = Array.from({ length: given }, () => one);"
        "return vectors.map(plane(vectors).place);",
        count,
    )
    assert places == [[0, 0]] * count


def test_a_picture_that_was_turned_and_mirrored_is_put_back(page: "Page") -> None:
    random = np.random.default_rng(1)
    before = random.normal(size=(12, 2))
    turn = np.array([[np.cos(2.0), -np.sin(2.0)], [np.sin(2.0), np.cos(2.0)]])
    now = np.concatenate([before, random.normal(size=(3, 2))]) @ turn @ np.diag([1, -1])
    back = run(
        page,
        "const { aligned } = await import('/pca.js'); return aligned(given.now, given.before);",
        {"now": now.tolist(), "before": before.tolist()},
    )
    np.testing.assert_allclose(np.array(back)[:12], before, atol=1e-9)


def test_the_path_lies_as_it_lay_when_the_page_is_loaded_again(page: "Page") -> None:
    random = np.random.default_rng(2)
    concepts = [packed(random.normal(size=16).astype("<f2")) for _ in range(12)]
    seen = run(
        page,
        """
        const { Concepts } = await import('/concepts.js');
        const event = (concepts, n) => ({ item_id: `i${n}`, role: 'user', index: 0, language: 'eng', dim: 16, count: 1,
                                          concepts });
        const live = new Concepts();
        given.forEach((each, n) => live.add(event(each, n)));
        live.add(event(given[0], 0)); // told twice
        const again = Concepts.fromJSON(JSON.parse(JSON.stringify(live)));
        return [live, again].map(({ points }) => points.map(({ x, y, nearness }) => [x, y, nearness ?? 0]));
        """,
        concepts,
    )
    assert len(seen[0]) == 12
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-9)


def test_of_two_spaces_only_the_latters_concepts_are_drawn(page: "Page") -> None:
    seen = run(
        page,
        """
        const { Concepts } = await import('/concepts.js');
        const concepts = new Concepts();
        const add = (item_id, space_id, dim) => concepts.add({ item_id, space_id, dim, role: 'user', index: 0,
          language: 'eng', count: 1, concepts: btoa('\x00\x3c'.repeat(dim)) });
        add('a', 'one', 4);
        add('b', 'two', 4);
        const same = concepts.points.map(({ item }) => item);
        add('c', 'two', 8);
        add('d', 'two', 8);
        const again = Concepts.fromJSON(JSON.parse(JSON.stringify(concepts)));
        return [same, concepts.points.map(({ item }) => item), again.points.map(({ nearness }) => nearness)];
        """,
    )
    assert seen == [["b"], ["c", "d"], [None, pytest.approx(1)]]


# The audio thread


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(48_000, 24_000), (44_100, 24_000), (16_000, 24_000), (96_000, 24_000), (24_000, 48_000), (24_000, 44_100)],
)
def test_the_resampler_gives_what_soxr_gives_however_the_sound_is_cut(
    page: "Page", from_rate: int, to_rate: int
) -> None:
    time = np.arange(from_rate // 4) / from_rate
    tones = np.array([90, 310, 1700, 4100, 6300])[:, None]
    sound = np.sin(2 * np.pi * tones * time + tones).mean(axis=0).astype(np.float32)
    found = run(
        page,
        WORKLET
        + f"""
        globalThis.sampleRate = given.from;
        const {{ resampler: {{ constructor: Resampler }} }} = new registered.capture();
        const sound = new Float32Array(({BYTES})(given.sound).buffer);
        const rest = new Float32Array(2000);
        const text = (pieces) => {{
          const all = Float32Array.from(pieces.flatMap((piece) => [...piece]));
          const bytes = new Uint8Array(all.buffer);
          return btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(''));
        }};
        const whole = new Resampler(given.from, given.to);
        const cut = new Resampler(given.from, given.to);
        const pieces = [];
        for (let start = 0, size = 1; start < sound.length; start += size, size = (size * 7) % 311 + 1) {{
          pieces.push(cut.push(sound.subarray(start, start + size)));
        }}
        return {{ whole: text([whole.push(sound), whole.push(rest)]), cut: text([...pieces, cut.push(rest)]) }};
        """,
        {"sound": packed(sound), "from": from_rate, "to": to_rate},
    )
    whole, cut = (np.frombuffer(base64.b64decode(found[name]), "<f4") for name in ("whole", "cut"))
    np.testing.assert_array_equal(cut, whole)
    expected = soxr.resample(sound, from_rate, to_rate, quality="VHQ")
    inner = slice(to_rate // 50, len(expected) - to_rate // 50)
    error = np.sqrt(np.mean((whole[inner] - expected[inner]) ** 2) / np.mean(expected[inner] ** 2))
    assert 20 * np.log10(error) < -60


def test_what_24_khz_cannot_hold_is_kept_out(page: "Page") -> None:
    peak = run(
        page,
        WORKLET
        + """
        globalThis.sampleRate = 48_000;
        const { resampler } = new registered.capture();
        const tone = Float32Array.from({ length: 9600 }, (_, n) => Math.sin((2 * Math.PI * 15_000 * n) / 48_000));
        return Math.max(...resampler.push(tone).subarray(200).map(Math.abs));
        """,
    )
    assert 20 * np.log10(peak) < -70


def test_the_microphone_comes_in_pieces_of_20_ms_as_the_wire_has_it(page: "Page") -> None:
    seen = run(
        page,
        WORKLET
        + """
        globalThis.sampleRate = 48_000;
        const capture = new registered.capture();
        const loud = new Float32Array(128).fill(1.5);
        for (let n = 0; n < 750; n++) capture.process([[loud]]);
        const { said } = capture.port;
        const last = new Int16Array(said.at(-1).audio);
        return { pieces: said.length, samples: last.length, value: last[100], level: said.at(-1).level,
                 idle: capture.process([[]]),
                 ended: (capture.port.onmessage({ data: 'end' }), capture.process([[loud]])) };
        """,
    )
    assert seen["pieces"] == 99, "two seconds, less what the resampler holds back"
    assert seen["samples"] == 480
    assert seen["value"] == 32767, "what is too loud is limited"
    assert seen["level"] == pytest.approx(1, abs=0.001)
    assert seen["idle"] is True, "it goes on when the microphone comes later"
    assert seen["ended"] is False, "else every opening would leave one that runs on"


def test_playback_counts_what_was_heard_and_falls_silent_at_once(page: "Page") -> None:
    seen = run(
        page,
        WORKLET
        + """
        globalThis.sampleRate = 48_000;
        const playback = new registered.playback();
        const { port } = playback;
        const give = (item, ms) => port.onmessage({ data: { play: new Float32Array(24 * ms).fill(0.5), item } });
        const play = (ms) => {
          let most = 0;
          for (let n = 0; n < (ms * 48) / 128; n++) {
            const output = new Float32Array(128);
            playback.process([], [[output]]);
            currentTime += 128 / 48_000;
            most = Math.max(most, ...output.map(Math.abs));
          }
          return most;
        };
        give('one', 100);
        give('two', 500);
        const loud = play(300);
        const ends = port.said.filter(({ item }) => item === 'one').at(-1);
        port.onmessage({ data: { clear: 1 } });
        const cleared = port.said.at(-1);
        play(8);
        const after = play(300);
        const reports = port.said.length;
        play(500);
        const quiet = port.said.length === reports;
        give('three', 10);
        play(20);
        return { loud, ends, cleared, after, quiet, three: port.said.at(-1) };
        """,
    )
    assert seen["loud"] == pytest.approx(0.5, abs=0.1), "where it sets in, the resampler overshoots"
    assert seen["ends"] == {"item": "one", "heard": 2400, "queued": 12000}
    cleared = seen["cleared"]
    assert cleared["item"] == "two"
    assert cleared["cleared"] == 1
    assert cleared["heard"] == pytest.approx(200 * 24, abs=200)
    assert seen["after"] < 1e-3
    assert seen["quiet"], "silence is not reported"
    assert seen["three"] == {"item": "three", "heard": 240, "queued": 0}


# What was said and heard


def test_words_count_as_heard_sentence_by_sentence(page: "Page") -> None:
    seen = run(
        page,
        """
        const { Conversation, heardCharacters, sentence } = await import('/conversation.js');
        const conversation = new Conversation();
        const audio = (ms) => ({ type: 'response.output_audio.delta', item_id: 'a', delta: btoa('x'.repeat(48 * ms)) });
        const text = (delta) => ({ type: 'response.output_audio_transcript.delta', item_id: 'a', delta });
        const item = { id: 'a', type: 'message', role: 'assistant', status: 'in_progress', content: [] };
        const events = [{ type: 'conversation.item.added', item, previous_item_id: null },
          text('Short. '), audio(100), text('A much longer one'), audio(400), audio(500)];
        for (const event of events) conversation.take(event);
        const at = (ms) => { conversation.hear('a', ms); return heardCharacters(conversation.find('a')); };
        const sentences = [0, 1].map((index) => sentence(conversation.find('a'), index));
        return { heard: [0, 50, 100, 550, 1000].map(at), sentences };
        """,
    )
    assert seen["heard"] == [0, 4, 7, 16, 24]
    assert seen["sentences"] == ["Short.", "A much longer one"]


def test_sound_that_was_not_heard_before_a_reload_is_asked_for_and_played_once(page: "Page") -> None:
    seen = run(
        page,
        """
        const { Hearing } = await import('/hearing.js');
        const { toBase64 } = await import('/base64.js');
        const sound = (item_id, ms) => ({ item_id, delta: toBase64(new Uint8Array(48 * ms)) });
        const hearing = new Hearing();
        hearing.take(sound('a', 300), 'event_1');
        hearing.take(sound('a', 300), 'event_2');
        hearing.take(sound('b', 200), 'event_7');
        const heard = hearing.heard('a', 350);
        const unheard = hearing.unheard(() => heard);
        const again = Hearing.goingOn(JSON.parse(JSON.stringify(unheard)));
        const lengths = [sound('a', 300), sound('b', 200)].map((event) => again.take(event, 'x').length / 24);
        const later = [again.heard('a', 250), again.heard('b', 200), again.unheard(() => 0)];
        return { unheard, lengths, later };
        """,
    )
    assert seen["unheard"] == {"event": "event_2", "item": "a", "from": 300, "heard": 350}
    assert seen["lengths"] == [250, 200], "50 ms of it had been heard"
    assert seen["later"] == [600, 200, None]


def test_what_is_silenced_stays_silent(page: "Page") -> None:
    seen = run(
        page,
        """
        const { Hearing } = await import('/hearing.js');
        const { toBase64 } = await import('/base64.js');
        const sound = (item_id) => ({ item_id, delta: toBase64(new Uint8Array(4800)) });
        const hearing = new Hearing();
        hearing.take(sound('a'), 'event_1');
        hearing.take(sound('b'), 'event_2');
        const waited = [...hearing.silence('c')];
        return { waited, played: ['a', 'b', 'c', 'd'].map((item) => hearing.take(sound(item), null) !== null) };
        """,
    )
    assert seen["waited"] == [["a", 100], ["b", 100]]
    assert seen["played"] == [False, False, False, True]


def test_a_held_button_sends_the_moment_before_and_after(page: "Page") -> None:
    seen = run(
        page,
        """
        const { Talk } = await import('/talk.js');
        const said = [];
        const talk = new Talk({ audio: ([number]) => said.push(number), event: ({ type }) => said.push(type),
                                tooShort: () => said.push('too short') });
        talk.mode = 'hold';
        let number = 0;
        const hear = (count) => { for (let n = 0; n < count; n++) talk.hear(Uint8Array.of(number++)); };
        hear(40);
        talk.hold();
        hear(20);
        talk.release();
        hear(20);
        talk.hold();
        hear(2);
        talk.release();
        hear(5);
        return said;
        """,
    )
    first = [*range(25, 66), "input_audio_buffer.commit", "response.create"]
    assert seen[: len(first)] == first, "300 ms before, 120 ms after"
    # The second time the button came up too early to have been meant.
    assert seen[len(first) :] == [*range(66, 82), "input_audio_buffer.clear", "too short"]


def test_let_go_and_held_again_at_once_it_is_the_same_turn(page: "Page") -> None:
    seen = run(
        page,
        """
        const { Talk } = await import('/talk.js');
        const said = [];
        const talk = new Talk({ audio: () => said.push('sound'), event: ({ type }) => said.push(type),
                                tooShort: () => said.push('too short') });
        talk.mode = 'hold';
        const hear = (count) => { for (let n = 0; n < count; n++) talk.hear(Uint8Array.of(0)); };
        talk.hold();
        hear(20);
        talk.release();
        hear(3);
        talk.hold();
        hear(2);
        talk.release();
        hear(20);
        return said;
        """,
    )
    assert seen == ["sound"] * (20 + 3 + 2 + 6) + ["input_audio_buffer.commit", "response.create"]


def test_each_trouble_with_a_microphone_says_what_to_do(page: "Page") -> None:
    told = run(
        page,
        """
        const { troubleWith } = await import('/microphone.js');
        const names = ['SecurityError', 'NotAllowedError', 'NotFoundError', 'NotReadableError', 'lost', 'silent', 'X'];
        return names.map((name) => troubleWith(name, { host: '192.168.1.20', port: '8765' }));
        """,
    )
    assert len({trouble["title"] for trouble in told}) == len(told)
    assert all(len(trouble["steps"]) >= 2 for trouble in told)
    assert any("--tls self-signed" in step for step in told[0]["steps"])
    assert any("http://localhost:8765" in step for step in told[0]["steps"])
