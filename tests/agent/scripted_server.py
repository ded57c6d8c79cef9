"""A server for the web page's tests that says what a test has it say. What a session is like, the real code decides."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from agent.core.events import Task
from agent.realtime.client_events import SessionUpdate
from agent.realtime.defaults import KnownLanguages, SessionDefaults
from agent.realtime.messages import parse_client_event
from agent.realtime.problems import ProtocolError
from agent.realtime.session_object import ResumeOffer
from agent.realtime.session_update import SessionUpdating
from agent.realtime.settings import SessionSettings, shown_session
from agent.server.pages import WEB

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocketRoute

_POLLS = 1500
_POLL_MS = 10
_LANGUAGES = KnownLanguages(("eng", "deu", "fra"), ("eng", "deu", "fra"))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def files_served() -> Iterator[str]:
    """The page's files, by themselves; the address of the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(WEB))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class ScriptedServer:
    """Answers `session.update` as the real one does, and nothing else by itself."""

    def __init__(self, page: "Page", task: Task = "converse", tasks: tuple[Task, ...] | None = None) -> None:
        offer = ResumeOffer(token="token", keep_s=60)
        self.defaults = SessionDefaults(_LANGUAGES, task=task, tasks=tasks or (task,), resume=offer)
        self.settings = SessionSettings.of(self.defaults)
        self.begun = False
        self.unwanted: str | None = None
        """The code of the error that every update is answered with"""
        self.told: list[dict[str, Any]] = []
        self._page = page
        self._events = 0
        page.route_web_socket("**/v1/realtime", self._accept)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What it was told of one kind."""
        return [message for message in self.told if message["type"] == kind]

    def until(self, condition: Callable[[], object]) -> None:
        """Waits; the page goes on meanwhile."""
        for _ in range(_POLLS):
            if condition():
                return
            self._page.wait_for_timeout(_POLL_MS)
        raise AssertionError(f"in vain; told: {[message['type'] for message in self.told]}")

    def say(self, kind: str, **fields: Any) -> None:
        """An event, numbered as the real server does."""
        self._events += 1
        self.socket.send(json.dumps({"type": kind, "event_id": f"event_{self._events}", **fields}))

    def refuse(self, code: str, param: str | None = None) -> None:
        """An error."""
        self.say(
            "error", error={"type": "invalid_request_error", "code": code, "message": f"no: {code}", "param": param}
        )

    def reply(self, number: int = 1, sound_ms: int = 0) -> str:
        """A reply begins, with so much sound; its item's id."""
        name, item = f"resp_{number}", f"item_{number}"
        shown = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        self.say("response.created", response={"id": name})
        self.say("response.output_item.added", response_id=name, item=shown)
        self.say("conversation.item.added", previous_item_id=None, item=shown)
        if sound_ms:
            self.say("response.output_audio_transcript.delta", response_id=name, item_id=item, delta="Well now.")
            sound = base64.b64encode(bytes((0, 16)) * (24 * sound_ms)).decode()
            self.say("response.output_audio.delta", response_id=name, item_id=item, delta=sound)
        return item

    def done(self, number: int = 1, status: str = "completed") -> None:
        """A reply is over."""
        self.say(
            "response.done", response={"id": f"resp_{number}", "status": status, "output": [{"id": f"item_{number}"}]}
        )

    def session(self) -> dict[str, Any]:
        """The session as it holds."""
        return json.loads(shown_session(self.settings, self.defaults, "sess_1").model_dump_json())  # type: ignore[no-any-return]

    def _accept(self, socket: "WebSocketRoute") -> None:
        self.socket = socket
        socket.on_message(self._take)
        self.say("session.created", session=self.session())

    def _take(self, text: str | bytes) -> None:
        message = json.loads(text)
        self.told.append(message)
        if message["type"] != "session.update":
            return
        event = parse_client_event(text)
        assert isinstance(event, SessionUpdate)
        if isinstance((message["session"].get("noema") or {}).get("resume"), dict):
            self.say("noema.resumed", session=self.session(), after_event=None, input_audio_samples=0, client_events=1)
        elif self.unwanted:
            self.refuse(self.unwanted, "session.noema.task")
        else:
            self._update(event)

    def _update(self, event: SessionUpdate) -> None:
        updating = SessionUpdating(self.settings, self.defaults, begun=self.begun)
        try:
            updating.apply(event.session)
        except ProtocolError as error:
            self.refuse(error.code, error.param)
            return
        self.settings = updating.settings
        self.say("session.updated", session=self.session())
