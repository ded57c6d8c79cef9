"""Settings: what of a session a client may set, as it holds; shown as the wire's session object and as an input.

Frozen: `session_update.py` makes the next of them out of a patch.
"""

from dataclasses import dataclass, field

from agent.core.events import Task
from agent.core.inputs import SettingsChanged
from agent.realtime.defaults import AUTO, SessionDefaults
from agent.realtime.models import AudioFormatObject, Modality
from agent.realtime.problems import ProtocolError
from agent.realtime.session_object import (
    AudioObject,
    InputObject,
    NoemaObject,
    OutputObject,
    SessionObject,
    TranscriptionObject,
    TurnDetectionObject,
)
from audio.telephony import AudioFormat

DEFAULT_VOICE = "default"
"""What the voice goes by where the session has none of its own"""


@dataclass(frozen=True, slots=True)
class Transcription:
    """What was heard is wanted in words."""

    language: str | None = None


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """The detector; None: the session's own."""

    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    idle_timeout_ms: int | None = None
    create_response: bool = True
    interrupt_response: bool | None = None
    """None: in a conversation; an interpreter goes on while the speaker does"""


@dataclass(frozen=True, slots=True)
class NoemaSettings:
    """What a client that knows the extension has asked for."""

    concepts: bool = False
    latency: bool = False
    meter: bool = False
    resume: bool = False
    forgotten: bool = False
    """It was to be kept, and then not to be: for good"""
    record: bool = False
    listeners: bool = False


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """All that a client may set."""

    task: Task
    language: str
    reply_language: str | None
    spoken: bool
    voice: str | None
    input_format: AudioFormat = "audio/pcm"
    output_format: AudioFormat = "audio/pcm"
    speed: float = 1.0
    instructions: str = ""
    temperature: float | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    noema: NoemaSettings | None = None
    """None: the client knows nothing of the extension"""

    @property
    def interruptible(self) -> bool:
        """Whether speech stops a reply."""
        detection = self.turn_detection
        if detection is None:
            return False
        return self.task == "converse" if detection.interrupt_response is None else detection.interrupt_response

    @property
    def modalities(self) -> list[Modality]:
        """Of replies."""
        return ["audio"] if self.spoken else ["text"]

    @classmethod
    def of(cls, defaults: SessionDefaults) -> "SessionSettings":
        """Before the client says anything."""
        return cls(defaults.task, defaults.language, defaults.reply_language, defaults.can_speak, defaults.voice)

    def changed(self, at_sample: int, defaults: SessionDefaults, instructions: str) -> SettingsChanged:
        """As the turn machine takes them; `instructions` are all there are, system items included."""
        detection = self.turn_detection or TurnDetection(create_response=False)
        languages = spoken_languages(self.language, defaults)
        return SettingsChanged(
            at_sample,
            languages[0],
            self.reply_language,
            self.task,
            languages if len(languages) > 1 else (),
            spoken=self.spoken,
            detection="manual" if self.turn_detection is None else "vad",
            auto_reply=detection.create_response,
            auto_interrupt=self.interruptible,
            threshold=detection.threshold,
            pre_roll_ms=detection.prefix_padding_ms,
            hangover_ms=detection.silence_duration_ms,
            idle_timeout_ms=detection.idle_timeout_ms,
            voice=self.voice,
            speed=self.speed,
            instructions=instructions if defaults.reads_words else "",
            temperature=self.temperature,
        )


def spoken_languages(choice: str, defaults: SessionDefaults) -> tuple[str, ...]:
    """The languages that a choice leaves possible, as the bundle writes them.

    Raises:
        ProtocolError: one of them is unknown.
    """
    known = defaults.languages
    if choice.strip() == AUTO:
        if not known.heard_and_written:
            raise ProtocolError(
                "invalid_value", "this bundle hears no language: auto means nothing", "session.noema.language"
            )
        return known.heard_and_written
    found = {name: known.find(name) for name in choice.split(",")}
    for name, tag in found.items():
        if tag is None:
            raise ProtocolError("invalid_value", unknown_language(name, known.text), "session.noema.language")
    return tuple(dict.fromkeys(tag for tag in found.values() if tag is not None))


def unknown_language(name: str, known: tuple[str, ...]) -> str:
    """What to tell a client that wants another."""
    several = f" {len(known)}" if len(known) > 20 else ""
    return f"the language {name[:20]!r} is not among this bundle's{several}: {', '.join(known[:20])}"


def shown_session(settings: SessionSettings, defaults: SessionDefaults, session_id: str) -> SessionObject:
    """The session with the values that hold."""
    return SessionObject(
        id=session_id,
        model=defaults.model,
        output_modalities=settings.modalities,
        instructions=settings.instructions,
        audio=AudioObject(
            input=InputObject(
                format=AudioFormatObject.of(settings.input_format),
                transcription=_shown_transcription(settings, defaults),
                turn_detection=_shown_detection(settings, defaults),
            ),
            output=OutputObject(
                format=AudioFormatObject.of(settings.output_format),
                voice=settings.voice or DEFAULT_VOICE,
                speed=settings.speed,
            ),
        ),
        expires_at=defaults.expires_at,
        temperature=settings.temperature,
        noema=_shown_noema(settings, defaults),
    )


def _shown_transcription(settings: SessionSettings, defaults: SessionDefaults) -> TranscriptionObject | None:
    if settings.transcription is None:
        return None
    return TranscriptionObject(model=defaults.model, language=settings.transcription.language)


def _shown_detection(settings: SessionSettings, defaults: SessionDefaults) -> TurnDetectionObject | None:
    detection = settings.turn_detection
    if detection is None:
        return None
    own = (defaults.threshold, defaults.prefix_padding_ms, defaults.silence_duration_ms)
    given = (detection.threshold, detection.prefix_padding_ms, detection.silence_duration_ms)
    threshold, padding, silence = (mine if theirs is None else theirs for mine, theirs in zip(own, given, strict=True))
    return TurnDetectionObject(
        threshold=threshold,
        prefix_padding_ms=int(padding),
        silence_duration_ms=int(silence),
        idle_timeout_ms=detection.idle_timeout_ms,
        create_response=detection.create_response,
        interrupt_response=settings.interruptible,
    )


def _shown_noema(settings: SessionSettings, defaults: SessionDefaults) -> NoemaObject | None:
    asked = settings.noema
    if asked is None:
        return None
    return NoemaObject(
        task=settings.task,
        tasks=list(defaults.tasks),
        language=settings.language,
        reply_language=settings.reply_language,
        languages={"text": list(defaults.languages.text), "speech": list(defaults.languages.speech)},
        space_id=defaults.space_id,
        dim=defaults.dim,
        recording=asked.record or defaults.records,
        resume=defaults.resume if asked.resume else None,
        listeners=defaults.listeners if asked.listeners else None,
        voices=[DEFAULT_VOICE, *defaults.voices],
        concepts=asked.concepts,
        latency=asked.latency,
        meter=asked.meter,
    )
