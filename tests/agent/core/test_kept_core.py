"""A session cut off anywhere goes on as if nothing had been: no event twice, none lost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core import core_state
from agent.core.inputs import AudioInput, Input, InputEnded, Speak, TypedText, Voiced
from agent.core.kept_core import CHECKPOINT_BYTES, KeptCore, restored
from agent.core.stored_session import ClientPosition, StoredSession
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.core.turn_state import Step
from agent.errors import StoreError
from agent.store.session_store import new_token
from agent.store.store_database import StoreDatabase, StoreLimits, open_database
from tests.agent.core.test_core_state import plain
from tests.agent.cut_talk import Delivery, Talk, check_goes_on, cuts

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


def said(number: int) -> str:
    return f"client {number}" if number % 2 else "-"


RARE = ("client", "context", "forget", "commit", "clear", "request", "cancel", "heard", "playback", "settings", "type")
ACTIONS = (*RARE, *(4 * ("speech", "silence", "answer", "answer")), "catch up", *(4 * ("pause",)), *(10 * ("store",)))
SCRIPTS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), min_size=20, max_size=60)


@pytest.fixture(autouse=True)
def _core_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_state, "_PACKAGES", (*core_state._PACKAGES, __name__, "tests.agent.cut_talk"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreDatabase]:
    path = tmp_path_factory.mktemp("store") / "resume.db"
    opened = open_database(path, StoreLimits(), lambda: 0.0, pytest.fail)
    yield opened
    opened.close()


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(script=SCRIPTS, options=st.sampled_from(OPTIONS), begun=st.integers(0, 3))
def test_a_session_goes_on_from_every_batch(
    database: StoreDatabase, script: list[tuple[str, int]], options: TurnOptions, begun: int
) -> None:
    talk = Talk(KeptCore(WireCore(options), str), np.random.default_rng(len(script)), said)
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
        check_goes_on(talk, delivery, taken, sent, back)
    with database.transaction():
        stored = [text for _, text in database.messages_after(session_id, 0)]
        database.delete(session_id)
    assert stored == delivery.sent


@pytest.fixture
def session(database: StoreDatabase, request: pytest.FixtureRequest) -> Delivery:
    """A session that is kept from its beginning, and speculates."""
    talk = Talk(KeptCore(WireCore(OPTIONS[1]), str), np.random.default_rng(0), said)
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


def test_what_opens_a_session_is_not_stored_with_it() -> None:
    token = new_token()
    kept = KeptCore(WireCore(OPTIONS[0]), str, token)
    given = [message for step in kept.take(f"here is {token}") for message in step.messages]
    kept.begin(sent=1)
    messages = [(1, f"own: {token}"), *enumerate(given[1:], start=2)]
    batch = kept.batch(messages, len(given) - 1, ClientPosition())
    assert batch.checkpoint is not None
    assert token not in str((batch.messages, batch.checkpoint))
    assert [(number, kept.unmasked(text)) for number, text in batch.messages] == messages
    stored = StoredSession("one", batch.checkpoint, (), ClientPosition(), len(given), 1)
    [asked] = restored(stored, str, str, token).core.outstanding
    assert plain(asked) == plain(kept.outstanding[0])
    assert token in str(asked)


def test_a_store_that_lost_something_is_not_believed(session: Delivery, database: StoreDatabase) -> None:
    session.talk.do("client", 1)
    session.store(late=0)
    with database.transaction():
        stored = database.load(session.session_id)
    assert stored is not None
    with pytest.raises(StoreError, match="damaged"):
        restored(replace(stored, core_messages=stored.core_messages + 1), str, str)


@pytest.mark.slow
def test_a_session_of_ten_thousand_turns_takes_no_more_room_in_its_second_half(tmp_path: Path) -> None:
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
        if turn % 100 == 0:
            sizes.append(path.stat().st_size + Path(f"{path}-wal").stat().st_size)
    half = len(sizes) // 2
    assert max(sizes[half:]) <= 1.1 * max(sizes[:half])
    database.close()
