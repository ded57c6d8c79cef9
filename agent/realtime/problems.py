"""Problems: what is wrong with a client's message, with the code, field and event id that its error names."""

from typing import Literal


class ProtocolError(Exception):
    """A message cannot be followed; the session goes on.

    Args:
        code: as OpenAI's server has it, where it has one.
        message: what is wrong and what to do.
        param: the field concerned, as `session.audio.input.format`.
        client_event_id: the client's own id of the message.
        kind: whose fault it is.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        client_event_id: str | None = None,
        kind: Literal["invalid_request_error", "server_error"] = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.client_event_id = client_event_id
        self.kind = kind
