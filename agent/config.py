"""Settings of the agent: `configs/agent.yaml`, checked, as the options its parts take.

The edge where YAML becomes types: unknown and impossible settings are refused here with one line. Nothing
behind this module reads YAML or the environment.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from agent.core.events import Task
from agent.core.turn_options import TurnOptions
from agent.errors import ConfigError
from agent.inference.openai_thinker import ChatEndpoint
from agent.order import VirtualLatency
from audio.segmenter import SegmenterOptions
from audio.vad import DEFAULT_VAD, OPERATING_POINTS, VadName
from configs import loader
from configs.loader import Settings

Precision = Literal["float32", "bfloat16", "float16", "int8"]
Backend = Literal["noema", "sonar-space"]
Variant = Literal[
    "base",
    "base_mse",
    "base_ce",
    "one_step",
    "one_tower",
    "planning",
    "quant_c",
    "quant_d",
    "two_tower",
    "two_tower_few",
]


class SegmenterConfig(Settings):
    """When speech starts and ends."""

    pre_roll_ms: NonNegativeInt = 300
    min_speech_ms: NonNegativeInt = 100
    soft_pause_ms: PositiveInt = 160
    hangover_ms: PositiveInt = 480
    tail_ms: NonNegativeInt = 160
    max_utterance_ms: int = Field(default=8000, gt=0, le=30_000)
    """No speech encoder takes more than 30 s."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """None: the detector's own."""
    release_threshold: float | None = Field(default=None, gt=0, lt=1)

    def options(self, detector: VadName) -> SegmenterOptions:
        """What the segmenter takes; thresholds that are not set are those that suit the detector."""
        given = asdict(OPERATING_POINTS[detector]) | self.model_dump(exclude_none=True)
        try:
            return SegmenterOptions(**given)
        except ValueError as error:
            raise ConfigError(f"segmenter: {error}") from error


class VadConfig(Settings):
    """Which detector listens."""

    name: VadName = DEFAULT_VAD


class VoiceConfig(Settings):
    """How the agent sounds."""

    rate_wpm: int = Field(default=165, ge=80, le=450)
    pitch: int = Field(default=50, ge=0, le=99)
    variant: str | None = None


class OpenAiConfig(Settings):
    """A chat endpoint, and how long it may take."""

    base_url: str = Field(default="http://127.0.0.1:8000/v1", pattern=r"^https?://\S+$")
    model: str = "default"
    key_variable: str = "OPENAI_API_KEY"
    connect_timeout_s: PositiveFloat = 3.0
    first_word_timeout_s: PositiveFloat = 10.0
    word_timeout_s: PositiveFloat = 5.0
    timeout_s: PositiveFloat = 30.0
    rest_s: NonNegativeFloat = 10.0

    def key(self) -> str | None:
        """The key, from the environment; without the line end that a file of it leaves, which no header may hold."""
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"the key in {self.key_variable} holds a character that no key has; set it anew")
        return key or None

    def endpoint(self) -> ChatEndpoint:
        """What the thinker takes."""
        return ChatEndpoint(
            self.base_url,
            self.model,
            self.key(),
            self.connect_timeout_s,
            self.first_word_timeout_s,
            self.word_timeout_s,
            self.timeout_s,
            self.rest_s,
        )


class ThinkerConfig(Settings):
    """Who answers in a conversation."""

    name: Literal["retrieve", "lcm", "openai"] = "retrieve"
    variant: Variant = "base"
    max_concepts: int = Field(default=4, ge=1, le=32)
    max_bank_sentences: int = Field(default=2, ge=1, le=32)
    openai: OpenAiConfig = OpenAiConfig()


class ConversationConfig(Settings):
    """Bounds of a conversation."""

    max_context_sentences: PositiveInt = 64
    max_pieces: PositiveInt = 4
    max_waiting_turns: PositiveInt = 8
    echo_guard_ms: NonNegativeInt = 300
    barge_in_ms: NonNegativeInt = 400
    speculation: bool = True
    adaptive_hangover: bool = True
    hangover_bounds_ms: tuple[PositiveInt, PositiveInt] = (320, 960)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.hangover_bounds_ms[0] > self.hangover_bounds_ms[1]:
            raise ValueError("hangover_bounds_ms: give the lower bound first")
        return self


class ServerConfig(Settings):
    """Who may connect to `noema serve`, and how much each may take. Every limit that the server has is here."""

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65_535)
    """0: one that is free"""
    tls: str | None = None
    """self-signed, or CERT:KEY; None: plain HTTP"""
    token_variable: str = "NOEMA_TOKEN"
    hosts: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], ...] = ()
    origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/\s]+$")], ...] = ()
    max_sessions: PositiveInt = 32
    max_detached: NonNegativeInt = 32
    detached_s: NonNegativeFloat = 60.0
    keep_s: NonNegativeFloat = 3600.0
    store_bytes: PositiveInt = 1_073_741_824
    max_handshakes: PositiveInt = 64
    handshake_s: PositiveFloat = 10.0
    max_message_bytes: int = Field(default=4_194_304, ge=65_536, le=67_108_864)
    """A minute of audio/pcm in one message"""
    max_input_s: PositiveInt = 600
    max_items: PositiveInt = 1024
    max_listeners: NonNegativeInt = 256
    max_listener_languages: PositiveInt = 8
    listener_backlog: PositiveInt = 32
    session_s: PositiveFloat = 3600.0
    idle_s: PositiveFloat = 900.0
    outbox_bytes: int = Field(default=8_388_608, ge=65_536)
    """Two minutes of audio/pcm"""
    ping_s: PositiveFloat = 20.0
    ping_timeout_s: PositiveFloat = 20.0
    keepalive_s: PositiveFloat = 10.0
    close_s: PositiveFloat = 5.0
    drain_s: NonNegativeFloat = 20.0
    worker_timeout_s: PositiveFloat = 60.0
    client_recording: bool = False

    def token(self) -> str | None:
        """The token that clients must show, from the environment; without the line end that a file of it leaves."""
        return os.environ.get(self.token_variable, "").strip() or None


class VirtualLatencyConfig(Settings):
    """What each stage takes on the clock of a file's replay."""

    encode_ms: PositiveInt = 60
    think_ms: PositiveInt = 40
    decode_ms: PositiveInt = 40
    voice_ms: PositiveInt = 20

    def latency(self) -> VirtualLatency:
        """What the order of inputs takes."""
        return VirtualLatency(**self.model_dump())


class AgentConfig(Settings):
    """All of `agent.yaml`."""

    bundle: str = "mini"
    device: str = "auto"
    precision: Precision = "float32"
    backend: Backend = "noema"
    language: str = "eng"
    task: Task = "converse"
    record: bool = False
    recordings_days: PositiveFloat | None = 30.0
    """Of a server's recordings; None: any age"""
    recordings_bytes: PositiveInt | None = 5_000_000_000
    """And of these together; None: any size"""
    segmenter: SegmenterConfig = SegmenterConfig()
    vad: VadConfig = VadConfig()
    voice: VoiceConfig = VoiceConfig()
    thinker: ThinkerConfig = ThinkerConfig()
    conversation: ConversationConfig = ConversationConfig()
    virtual_latency: VirtualLatencyConfig = VirtualLatencyConfig()
    server: ServerConfig = ServerConfig()

    def turn_options(
        self,
        *,
        task: Task,
        languages: Sequence[str],
        reply_language: str | None,
        spoken_reply: bool,
        words_first: bool = False,
        costly: bool = False,
        live: bool = False,
    ) -> TurnOptions:
        """The options of one session; of several languages, which is spoken is found out.

        What makes a live session quick holds only there: a recording gives the same with fixed times.
        """
        conversation = self.conversation.model_dump()
        if not live:
            conversation |= {"speculation": False, "adaptive_hangover": False}
        return TurnOptions(
            segmenter=self.segmenter.options(self.vad.name),
            task=task,
            language=languages[0],
            candidates=tuple(languages) if len(languages) > 1 else (),
            reply_language=reply_language,
            spoken_reply=spoken_reply,
            words_first=words_first,
            costly=costly,
            **conversation,
        )


def load_config(path: Path | None) -> AgentConfig:
    """The settings of a file, or those the agent comes with."""
    return loader.load_config(path or loader.packaged_config("agent.yaml"), AgentConfig)
