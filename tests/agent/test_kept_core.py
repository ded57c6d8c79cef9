"""A session cut off anywhere goes on as if nothing had been: no event twice, none lost."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import core_state
from agent.errors import StoreError
from agent.inputs import (
    AudioCleared,
    AudioCommitted,
    AudioInput,
    CancelTurn,
    CommitTurn,
    ContextForgotten,
    ContextGiven,
    Decode,
    Decoded,
    Encoded,
    EncodeSpeech,
    EncodeText,
    Input,
    InputEnded,
    PlaybackPosition,
    ReplyCancelled,
    ReplyHeard,
    ReplyRequested,
    Request,
    Result,
    SettingsChanged,
    Speak,
    Think,
    Thought,
    TypedText,
    Voiced,
    WorkFailed,
)
from agent.kept_core import CHECKPOINT_BYTES, KeptCore, Restoration, restored
from agent.store_database import StoreDatabase, StoreLimits, open_database
from agent.stored_session import Batch, ClientPosition
from agent.turn import TurnMachine
from agent.turn_options import TurnOptions
from agent.turn_state import Step
from audio.frames import from_pcm16
from tests.agent.test_core_state import plain

OPTIONS = (
    TurnOptions(),
    TurnOptions(speculation=True, interruptible=True, adaptive_hangover=True, assume_playback=True, barge_in_ms=200),
    TurnOptions(half_duplex=True, words_first=True, candidates=("eng", "fra")),
    TurnOptions(task="translate", reply_language="fra", speculation=True, max_waiting_turns=2),
)


class WireCore:
    """The turn machine with a wire's language: a message for each event, and what a client says itself."""

    def __init__(self, options: TurnOptions) -> None:
        self.machine = TurnMachine(options)

    @property
    def ended(self) -> bool:
        return self.machine.ended

    @property
    def sample(self) -> int:
        return self.machine.sample

    def take(self, item: Input | str) -> list[Step]:
        if isinstance(item, str):
            greeting = Step(messages=[f"hello {item}"])
            return [greeting, *self.take(TypedText(self.sample, item))] if item != "-" else [greeting]
        step = self.machine.push(item)
        messages = [f"{type(event).__name__} at {event.at_sample}" for event in step.events]
        return [replace(step, messages=messages)]


@pytest.fixture(autouse=True)
def _core_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_state, "_OURS", ("agent.", "audio.", "tests."))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreDatabase]:
    path = tmp_path_factory.mktemp("store") / "resume.db"
    opened = open_database(path, StoreLimits(), lambda: 0.0, pytest.fail)
    yield opened
    opened.close()


def results(request: Request) -> list[Result]:  # noqa: PLR0911 - one for each kind
    """All that comes of a request, the same every time."""
    rng = np.random.default_rng(request.turn)
    concept = rng.normal(size=4).astype(np.float32)
    match request:
        case EncodeSpeech(number, turn, piece):
            found = (request.candidates[-1], 0.9) if request.candidates else (None, None)
            return [Encoded(0, number, turn, piece, concept[None], None, True, *found)]
        case EncodeText(number, turn, piece, text):
            if text == "fails":
                return [WorkFailed(0, number, turn, "understand", "it fails")]
            return [Encoded(0, number, turn, piece, concept[None], (text,))]
        case Think(number, turn):
            parts = [
                Thought(0, number, turn, concept, None, last=False),
                Thought(0, number, turn, None, "b", last=False),
            ]
            return [*parts, Thought(0, number, turn, None, None, last=True)]
        case Decode(number, turn, index):
            return [Decoded(0, number, turn, index, f"sentence {index}")]
        case Speak(number, turn, index):
            sound = from_pcm16(rng.integers(-99, 99, 4800).astype(np.int16))
            stretches = ((sound[:2400], False), (sound[2400:], False), (sound[:0], True))
            return [Voiced(0, number, turn, index, *stretch) for stretch in stretches]
        case _:
            return []


class Talk:
    """A session as it runs: the core takes what comes, results among them; messages are delivered in batches."""

    def __init__(self, core: KeptCore, rng: np.random.Generator) -> None:
        self.core = core
        self.rng = rng
        self.taken: list[Input | str] = []
        self.steps: list[list[Step]] = []
        self.pending: dict[int, list[Result]] = {}
        self.wanted: dict[int, int] = {}
        """Request → how many of its results came, as long as there are more to come that somebody waits for"""
        self.given: list[str] = []
        self.heard = 0

    def take(self, item: Input | str) -> None:
        self.taken.append(item)
        self.steps.append(self.core.take(item))
        for step in self.steps[-1]:
            self.given += step.messages
            for request in step.requests:
                self._note(request)

    def _note(self, request: Request) -> None:
        if isinstance(request, CancelTurn):  # results that are under way may still come
            gone = [n for n in self.wanted if self.pending[n][0].turn == request.turn and n <= request.last_request]
            self.wanted = {number: came for number, came in self.wanted.items() if number not in gone}
        elif not isinstance(request, CommitTurn):
            self.pending[request.request] = results(request)
            self.wanted[request.request] = 0

    def answer(self, which: int) -> None:
        if self.pending:
            number = list(self.pending)[which % len(self.pending)]
            result, *rest = self.pending[number]
            if number in self.wanted:
                self.wanted[number] += 1
            if rest:
                self.pending[number] = rest
            else:
                del self.pending[number]
                self.wanted.pop(number, None)
            self.take(replace(result, at_sample=self.core.sample))

    def catch_up(self) -> None:
        while self.pending:
            self.answer(0)

    def sound(self, frames: int, *, speech: bool) -> None:
        for _ in range(frames):
            samples = from_pcm16(self.rng.integers(-3000 if speech else -3, 4, 320).astype(np.int16))
            self.take(AudioInput(self.heard, samples, 1.0 if speech else 0.0))
            self.heard += 320

    def do(self, action: str, number: int) -> None:
        at = self.core.sample
        commands: dict[str, Callable[[], Input | str]] = {
            "type": lambda: TypedText(at, "fails" if number == 0 else f"Text {number}.", wants_reply=number % 3 > 0),
            "client": lambda: f"client {number}" if number % 2 else "-",
            "context": lambda: ContextGiven(at, ("user", "agent")[number % 2], "Said before."),
            "forget": lambda: ContextForgotten(at, number % 4, ("user", "agent")[number % 2]),
            "commit": lambda: AudioCommitted(at),
            "clear": lambda: AudioCleared(at),
            "request": lambda: ReplyRequested(at, (None, True, False)[number % 3]),
            "cancel": lambda: ReplyCancelled(at),
            "heard": lambda: ReplyHeard(at, number % 4, 1000 * number),
            "playback": lambda: PlaybackPosition(at, 2000 * number),
            "settings": lambda: SettingsChanged(
                at,
                "eng",
                (None, "fra")[number % 2],
                "converse",
                detection="manual" if number % 3 == 0 else "vad",
                auto_reply=number % 4 > 0,
                pre_roll_ms=(None, 500)[number % 2],
                idle_timeout_ms=(None, 400)[number % 2],
            ),
        }
        if action == "speech":
            self.sound(6 + 3 * number, speech=True)
        elif action == "silence":
            self.sound(9 + 3 * number, speech=False)  # a soft pause at least
        elif action == "answer":
            for _ in range(number):
                self.answer(number)
        elif action == "catch up":
            self.catch_up()
        elif action == "pause":
            self.catch_up()
            self.sound(10, speech=True)
            self.sound(9, speech=False)
        else:
            self.take(commands[action]())


class Delivery:
    """Takes the core's messages in order, some late, and stores them before they count as sent."""

    def __init__(self, talk: Talk, database: StoreDatabase, session_id: str) -> None:
        self.talk = talk
        self.database = database
        self.session_id = session_id
        self.sent: list[str] = []

    def store(self, late: int) -> Batch:
        """Stores what was given, but for the last few messages, which are still on their way."""
        given = self.talk.given
        ready = given[len(self.sent) : max(len(self.sent), len(given) - late)]
        numbered = list(enumerate(ready, start=len(self.sent) + 1))
        self.sent += ready
        position = ClientPosition(len(self.talk.taken))
        batch = self.talk.core.batch(numbered, len(ready), position)
        with self.database.transaction():
            self.database.append(self.session_id, batch)
        return batch

    def come_back(self) -> Restoration | None:
        """What a new process finds."""
        with self.database.transaction():
            stored = self.database.load(self.session_id)
        if stored is None:
            return None
        assert stored.position == ClientPosition(len(self.talk.taken))
        assert stored.last_message == stored.core_messages == len(self.sent)
        return restored(stored, lambda text: text, lambda text: text)


def requests_of(steps: list[Step]) -> list[object]:
    return [plain(request) for step in steps for request in step.requests]


RARE = ("client", "context", "forget", "commit", "clear", "request", "cancel", "heard", "playback", "settings", "type")
ACTIONS = (*RARE, *(4 * ("speech", "silence", "answer", "answer")), "catch up", *(4 * ("pause",)), *(10 * ("store",)))
SCRIPTS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), min_size=20, max_size=60)


def cuts(talk: Talk, delivery: Delivery, script: list[tuple[str, int]]) -> Iterator[tuple[int, list[str], Restoration]]:
    """Runs a script; after each batch, how many items were taken, what had been sent, and what came back."""
    for action, number in script:
        if action != "store":
            talk.do(action, number)
            continue
        delivery.store(late=number % 3)
        back = delivery.come_back()
        if back is not None:
            outstanding = {again.request.request: again.answered for again in back.core.outstanding}
            assert outstanding == talk.wanted
            assert plain(back.core.core) == plain(talk.core.core)
            yield len(talk.taken), list(delivery.sent), back


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(script=SCRIPTS, options=st.sampled_from(OPTIONS), begun=st.integers(0, 3))
def test_a_session_goes_on_from_every_batch(
    database: StoreDatabase, script: list[tuple[str, int]], options: TurnOptions, begun: int
) -> None:
    talk = Talk(KeptCore(WireCore(options), str), np.random.default_rng(len(script)))
    session_id = f"session {id(talk)}"
    delivery = Delivery(talk, database, session_id)
    for action, number in script[:begun]:
        if action != "store":
            talk.do(action, number)
    talk.core.begin()
    with database.transaction():
        database.create(session_id, session_id.encode())
    found = list(cuts(talk, delivery, [*script[begun:], ("store", 0)]))
    talk.take(InputEnded(talk.core.sample))
    talk.catch_up()
    for taken, sent, back in found:
        goes_on = [step for item in talk.taken[taken:] for step in back.core.take(item)]
        rest = [step for steps in talk.steps[taken:] for step in steps]
        assert plain([step.events for step in goes_on]) == plain([step.events for step in rest])
        assert requests_of(goes_on) == requests_of(rest)
        messages = [message for step in goes_on for message in step.messages]
        assert [*sent, *back.messages, *messages] == talk.given
    with database.transaction():
        stored = [text for _, text in database.messages_after(session_id, 0)]
        database.delete(session_id)
    assert stored == delivery.sent


@pytest.fixture
def session(database: StoreDatabase, request: pytest.FixtureRequest) -> Delivery:
    """A session that is kept from its beginning, and speculates."""
    talk = Talk(KeptCore(WireCore(OPTIONS[1]), str), np.random.default_rng(0))
    talk.core.begin()
    session_id = request.node.name
    with database.transaction():
        database.create(session_id, session_id.encode())
    return Delivery(talk, database, session_id)


def test_nothing_can_be_resumed_before_what_came_before_is_stored(session: Delivery) -> None:
    session.talk.core.stop()
    session.talk.do("client", 1)
    session.talk.core.begin()
    session.talk.do("client", 3)
    session.store(late=len(session.talk.given))
    assert session.come_back() is None
    session.store(late=1)
    back = session.come_back()
    assert back is not None
    assert [*session.sent, *back.messages] == session.talk.given


def test_a_sound_that_was_given_in_part_is_not_asked_for_from_its_beginning(session: Delivery) -> None:
    talk = session.talk
    talk.do("type", 1)
    while not any(isinstance(item, Voiced) for item in talk.taken):
        talk.answer(0)
    session.store(late=0)
    back = session.come_back()
    assert back is not None
    assert [again.answered for again in back.core.outstanding if isinstance(again.request, Speak)] == [1, 0]


def test_what_was_speculation_is_asked_again_as_what_it_came_to_be(session: Delivery) -> None:
    def asked_again() -> list[bool]:
        session.store(late=0)
        back = session.come_back()
        assert back is not None
        return [again.request.committed for again in back.core.outstanding]

    session.talk.do("pause", 0)
    assert asked_again() == [False]
    session.talk.sound(30, speech=False)
    assert asked_again() == [True]


def test_what_a_turn_was_made_of_is_forgotten_when_it_is_over(session: Delivery) -> None:
    session.store(late=0)
    session.talk.do("speech", 9)
    session.talk.do("silence", 9)
    session.store(late=0)
    back = session.come_back()
    assert back is not None
    assert any(isinstance(step.item, AudioInput) for step in back.steps)
    session.talk.catch_up()
    session.store(late=0)
    back = session.come_back()
    assert back is not None
    assert back.steps == []


def test_a_session_that_never_pauses_is_not_kept_from_its_beginning(session: Delivery) -> None:
    most = 0
    for _ in range(60):
        session.talk.sound(25, speech=True)
        session.store(late=0)
        back = session.come_back()
        assert back is not None
        most = max(most, sum(len(step.item.samples) for step in back.steps if isinstance(step.item, AudioInput)))
    assert 2 * most <= CHECKPOINT_BYTES + 25 * 320 * 4


def test_a_store_that_lost_something_is_not_believed(session: Delivery, database: StoreDatabase) -> None:
    session.talk.do("client", 1)
    session.store(late=0)
    with database.transaction():
        stored = database.load(session.session_id)
    assert stored is not None
    with pytest.raises(StoreError, match="damaged"):
        restored(replace(stored, core_messages=stored.core_messages + 1), str, str)


@pytest.mark.slow
def test_a_session_of_ten_thousand_turns_takes_no_more_room_than_one_of_five_hundred(tmp_path: Path) -> None:
    path = tmp_path / "resume.db"
    database = open_database(path, StoreLimits(outbox_bytes=100_000), lambda: 0.0, pytest.fail)
    talk = Talk(KeptCore(WireCore(OPTIONS[0]), str), np.random.default_rng(0))
    talk.core.begin()
    with database.transaction():
        database.create("long", b"")
    delivery, sizes = Delivery(talk, database, "long"), []
    for turn in range(10_000):
        talk.do("type", 1)
        talk.catch_up()
        delivery.store(late=0)
        sizes += [path.stat().st_size + Path(f"{path}-wal").stat().st_size] if turn in {500, 9_999} else []
    assert sizes[1] <= 1.2 * sizes[0]
    database.close()
