"""Whatever a client sends, whenever: responses end once and say nothing after, ids are unique, the order is legal."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.core.inputs import EncodeSpeech, EncodeText, Speak, Think
from agent.core.turn_options import TurnOptions
from tests.agent.realtime.client import Client

OPTIONS = (
    TurnOptions(interruptible=True, assume_playback=True),
    TurnOptions(interruptible=True, speculation=True, adaptive_hangover=True, barge_in_ms=200, max_waiting_turns=2),
    TurnOptions(words_first=True, max_waiting_turns=3),
    TurnOptions(half_duplex=True, speculation=True),
)
TEXT = st.sampled_from(["Hello.", "And then?", "", "x" * 30])
ITEM_ENDS = ("response.content_part.done", "conversation.item.done", "response.output_item.done", "response.done")


class Witness:
    """Reads what a client is told, and knows what may come next."""

    def __init__(self) -> None:
        self.seen = 0
        self.event_ids: set[str] = set()
        self.items: set[str] = set()
        self.responses: dict[str, str] = {}
        """Response → status"""
        self.reply: list[str] = []
        """What came of the response under way"""
        self.reply_item: str | None = None
        self.speech: str | None = None
        self.committed: list[str] = []
        """Items that were committed and not added yet"""
        self.open_items: list[str] = []
        self.told: set[str] = set()

    def read(self, message: dict[str, Any]) -> None:
        """The next message."""
        assert message["event_id"] not in self.event_ids
        self.event_ids.add(message["event_id"])
        kind: str = message["type"]
        if self.committed:
            assert kind == "conversation.item.added"
        reader: Callable[[dict[str, Any]], None] = getattr(self, "_" + kind.replace(".", "_"), self._other)
        reader(message)
        if kind.startswith("response."):
            self._of_response(kind, message)

    def _other(self, message: dict[str, Any]) -> None:
        """Nothing more is asked of it."""

    # Speech

    def _input_audio_buffer_speech_started(self, message: dict[str, Any]) -> None:
        assert self.speech is None
        assert message["item_id"] not in self.items
        self.speech = message["item_id"]

    def _input_audio_buffer_speech_stopped(self, message: dict[str, Any]) -> None:
        assert self.speech == message["item_id"]
        self.speech = None

    def _input_audio_buffer_committed(self, message: dict[str, Any]) -> None:
        assert self.speech is None
        self.committed.append(message["item_id"])

    def _conversation_item_input_audio_transcription_completed(self, message: dict[str, Any]) -> None:
        assert message["item_id"] in self.items
        assert message["item_id"] not in self.told
        self.told.add(message["item_id"])

    _conversation_item_input_audio_transcription_failed = _conversation_item_input_audio_transcription_completed

    # Items

    def _conversation_item_added(self, message: dict[str, Any]) -> None:
        name = message["item"]["id"]
        assert name not in self.items
        assert not self.committed or name == self.committed.pop()
        self.items.add(name)
        self.open_items.append(name)

    def _conversation_item_done(self, message: dict[str, Any]) -> None:
        self.open_items.remove(message["item"]["id"])

    def _conversation_item_truncated(self, message: dict[str, Any]) -> None:
        assert message["item_id"] in self.items
        assert message["item_id"] not in self.open_items

    def _error(self, message: dict[str, Any]) -> None:
        assert message["error"]["type"] == "invalid_request_error"
        assert message["error"]["event_id"]

    # Responses

    def _response_created(self, message: dict[str, Any]) -> None:
        response = message["response"]
        assert response["id"] not in self.responses
        assert "in_progress" not in self.responses.values()
        self.responses[response["id"]] = response["status"]
        self.reply, self.reply_item = [], None

    def _response_output_item_added(self, message: dict[str, Any]) -> None:
        self.reply_item = message["item"]["id"]

    def _response_done(self, message: dict[str, Any]) -> None:
        response = message["response"]
        assert self.responses[response["id"]] == "in_progress"
        assert response["status"] != "in_progress"
        self.responses[response["id"]] = response["status"]
        assert [item["id"] for item in response["output"]] == [self.reply_item] * bool(self.reply_item)
        assert self.reply_item not in self.open_items

    def _of_response(self, kind: str, message: dict[str, Any]) -> None:
        name = message.get("response_id") or message["response"]["id"]
        if kind != "response.done":
            assert self.responses[name] == "in_progress"
        if "item_id" in message:
            assert message["item_id"] == self.reply_item
        self.reply.append(kind)
        if kind.endswith(".delta"):
            assert self.reply[:3] == ["response.created", "response.output_item.added", "response.content_part.added"]
            assert not any(earlier.endswith(".done") for earlier in self.reply)
        if kind == "response.done":
            spoken = message["response"]["output_modalities"] == ["audio"]
            ends = ["response.output_audio.done", "response.output_audio_transcript.done"]
            ends = [*(ends if spoken else ["response.output_text.done"]), *ITEM_ENDS[:1], *ITEM_ENDS[2:]]
            assert [end for end in self.reply if end.endswith(".done")] == (ends if self.reply_item else ends[-1:])


class AnyClient(RuleBasedStateMachine):
    """A client that does anything, against a model that is quick, slow or broken."""

    @initialize(
        options=st.sampled_from(OPTIONS), noema=st.booleans(), reads_words=st.booleans(), transcription=st.booleans()
    )
    def connect(self, options: TurnOptions, noema: bool, reads_words: bool, transcription: bool) -> None:
        """A session begins."""
        self.client = Client(options, reads_words=reads_words)
        self.witness = Witness()
        self.client.answers = False
        self.sent = 0
        if noema:
            self.client.update(noema={"concepts": True})
        if transcription:
            self.client.update(audio={"input": {"transcription": {}}})

    def send(self, kind: str, **fields: Any) -> None:
        """An event with an id."""
        self.sent += 1
        self.client.send(kind, event_id=f"mine_{self.sent}", **fields)

    def item_id(self, number: int) -> str:
        """An item that there was, or not."""
        known = sorted(self.witness.items)
        return known[number % len(known)] if known and number else "nothing"

    # The client

    @rule(seconds=st.sampled_from([0.06, 0.2, 0.5, 1.2]), speech=st.booleans())
    def be_heard(self, seconds: float, speech: bool) -> None:
        """Sound, or silence."""
        self.client.sound(seconds, speech=speech)

    @rule()
    def speak(self) -> None:
        """A whole utterance."""
        self.client.say(0.4)

    @rule()
    def commit(self) -> None:
        """By hand."""
        self.send("input_audio_buffer.commit")

    @rule()
    def clear(self) -> None:
        """All that was heard."""
        self.send("input_audio_buffer.clear")

    @rule(text=TEXT, role=st.sampled_from(["user", "assistant", "system"]), own=st.booleans())
    def write(self, text: str, role: str, own: bool) -> None:
        """An item."""
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        item = {"type": "message", "role": role, "content": [part]} | ({"id": f"own_{self.sent}"} if own else {})
        self.send("conversation.item.create", item=item)

    @rule(modalities=st.sampled_from([None, ["text"], ["audio"]]))
    def ask(self, modalities: list[str] | None) -> None:
        """For a response."""
        self.send("response.create", response={"output_modalities": modalities})

    @rule()
    def cancel(self) -> None:
        """The response."""
        self.send("response.cancel")

    @rule(number=st.integers(0, 20), kind=st.sampled_from(["delete", "retrieve"]))
    def touch(self, number: int, kind: str) -> None:
        """An item."""
        self.send(f"conversation.item.{kind}", item_id=self.item_id(number))

    @rule(number=st.integers(0, 20), heard_ms=st.sampled_from([0, 50, 150, 10_000]))
    def truncate(self, number: int, heard_ms: int) -> None:
        """An item."""
        self.send("conversation.item.truncate", item_id=self.item_id(number), content_index=0, audio_end_ms=heard_ms)

    @rule(number=st.integers(0, 20), heard_ms=st.sampled_from([0, 50, 150]))
    def play(self, number: int, heard_ms: int) -> None:
        """An item."""
        self.send("noema.playback", item_id=self.item_id(number), audio_ms=heard_ms)

    @rule(
        detection=st.sampled_from(
            [
                None,
                {},
                {"create_response": False},
                {"interrupt_response": False},
                {"silence_duration_ms": 200},
                {"idle_timeout_ms": 1000},
            ]
        )
    )
    def detect(self, detection: dict[str, Any] | None) -> None:
        """Turns, in another way."""
        self.send("session.update", session={"audio": {"input": {"turn_detection": detection}}})

    @rule(
        session=st.sampled_from(
            [
                {"output_modalities": ["text"]},
                {"output_modalities": ["audio"]},
                {"noema": {"task": "translate", "reply_language": "fra"}},
                {"noema": {"task": "converse", "language": "auto"}},
                {"noema": {"language": "nonsense"}},
                {"audio": {"output": {"format": {"type": "audio/pcmu"}}}},
            ]
        )
    )
    def update(self, session: dict[str, Any]) -> None:
        """The session."""
        self.send("session.update", session=session)

    # The model

    @rule(count=st.integers(1, 6))
    def answer(self, count: int) -> None:
        """Some of what is asked."""
        for _ in range(count):
            if self.client.waiting:
                self.client.answer_next()

    @rule(sentences=st.integers(0, 3), fails=st.sampled_from([None, None, Think, EncodeText, EncodeSpeech, Speak]))
    def change_mind(self, sentences: int, fails: type | None) -> None:
        """Other replies, or none."""
        self.client.sentences = sentences
        self.client.fails = {fails} if fails else set()

    # What holds

    @invariant()
    def what_is_told_is_legal(self) -> None:
        """Every message follows from those before."""
        if hasattr(self, "client"):
            for message in self.client.got[self.witness.seen :]:
                self.witness.seen += 1
                self.witness.read(message)
            assert not self.witness.committed

    def teardown(self) -> None:
        """Once everything is answered, nothing is open."""
        if not hasattr(self, "client"):
            return
        self.client.answers = True
        self.client.catch_up()
        self.what_is_told_is_legal()
        assert "in_progress" not in self.witness.responses.values()
        assert not self.witness.open_items
        # Who asks now is answered: nothing that happened has left the session deaf or dumb.
        self.client.sentences, self.client.fails = 1, set()
        self.client.forget()
        self.witness.seen = 0
        self.client.update(output_modalities=["text"], audio={"input": {"turn_detection": None}})
        self.client.send("response.create", event_id="last")
        assert self.client.of("response.done")[-1]["response"]["status"] == "completed"


AnyClient.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnyClient = AnyClient.TestCase
