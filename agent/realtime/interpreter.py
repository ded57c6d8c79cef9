"""Interpreter: the core of a session of `/v1/realtime/translations`: the turn machine, and this endpoint's wire. Pure.

What is said in goes to the turn machine, whose task is to translate; its events become this endpoint's messages in the
very step in which they happen. The output is one stream of words and one of sound, so there are no items. Who speaks
while something still sounds does not stop it: an interpreter goes on.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from agent.core.events import DomainEvent, Heard, ReplyAudio, ReplySentence, SessionEnded, Warned
from agent.core.inputs import Input, SettingsChanged
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.core.turn_state import Step
from agent.realtime.defaults import SessionDefaults
from agent.realtime.messages import error_event
from agent.realtime.problems import ProtocolError
from agent.realtime.settings import spoken_languages, unknown_language
from agent.realtime.translation import (
    InputTranscriptDelta,
    OutputAudioDelta,
    OutputTranscriptDelta,
    TranslationAudioObject,
    TranslationClosed,
    TranslationCreated,
    TranslationInputObject,
    TranslationOutputObject,
    TranslationPatch,
    TranslationServerEvent,
    TranslationSessionObject,
    TranslationTranscriptionObject,
    TranslationUpdate,
    TranslationUpdated,
)
from audio.frames import SAMPLE_RATE
from audio.telephony import AudioEncoder

Taken: TypeAlias = Input | TranslationUpdate | ProtocolError
"""What a session of this endpoint is made of"""


@dataclass(frozen=True, slots=True)
class InterpreterSettings:
    """What a client may set."""

    language: str
    """One, several (`eng,fra`), or `auto`"""
    output_language: str | None
    transcription: bool = False


def interpreting(options: TurnOptions) -> TurnOptions:
    """The options of a session that translates, as an interpreter has them."""
    assert options.task == "translate", "an interpreter does nothing else"
    return replace(options, interruptible=False, half_duplex=False)


class Interpreter:
    """Decides, and says it in this endpoint's language.

    Args:
        machine: made with options that `interpreting` gave.
        defaults: what holds until the client says otherwise.
        session_id: what the session is called.
    """

    def __init__(self, machine: TurnMachine, defaults: SessionDefaults, session_id: str) -> None:
        self._machine = machine
        self._defaults = defaults
        self._session_id = session_id
        self._settings = InterpreterSettings(defaults.language, defaults.reply_language)
        self._encoder = AudioEncoder("audio/pcm")
        self._has_heard = self._has_said = False

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self._machine.ended

    @property
    def sample(self) -> int:
        """The clock."""
        return self._machine.sample

    def opening(self) -> list[TranslationServerEvent]:
        """What a client is told first."""
        return [TranslationCreated(session=self._session)]

    def take(self, item: Taken) -> list[Step]:
        """What follows from an input, or from what the client sent."""
        if isinstance(item, ProtocolError):
            return [Step(messages=[error_event(item)])]
        if isinstance(item, TranslationUpdate):
            return self._update(item)
        step = self._machine.push(item)
        for event in step.events:
            step.messages.extend(self._told(event))
        return [step]

    def _update(self, event: TranslationUpdate) -> list[Step]:
        try:
            self._settings = self._patched(event.session)
        except ProtocolError as problem:
            problem.client_event_id = event.event_id
            return [Step(messages=[error_event(problem)])]
        languages = spoken_languages(self._settings.language, self._defaults)
        changed = SettingsChanged(
            self.sample,
            languages[0],
            self._settings.output_language,
            "translate",
            languages if len(languages) > 1 else (),
            spoken=self._defaults.can_speak,
            auto_interrupt=False,
            voice=self._defaults.voice,
        )
        step = self._machine.push(changed)
        step.messages.append(TranslationUpdated(session=self._session))
        return [step]

    def _patched(self, patch: TranslationPatch) -> InterpreterSettings:
        settings, audio = self._settings, patch.audio
        if audio is None:
            return settings
        if audio.input is not None:
            if audio.input.language is not None:
                self._check_heard(audio.input.language)
                settings = replace(settings, language=audio.input.language)
            if "transcription" in audio.input.model_fields_set:
                settings = replace(settings, transcription=audio.input.transcription is not None)
        if audio.output is not None and audio.output.language is not None:
            known = self._defaults.languages
            language = known.find(audio.output.language)
            if language is None:
                reason = unknown_language(audio.output.language, known.text)
                raise ProtocolError("invalid_value", reason, "session.audio.output.language")
            settings = replace(settings, output_language=language)
        return settings

    def _check_heard(self, choice: str) -> None:
        """Speech in these languages is understood; nothing else comes in here."""
        known = self._defaults.languages
        try:
            languages = spoken_languages(choice, self._defaults)
        except ProtocolError as problem:
            problem.param = "session.audio.input.language"
            raise
        for language in languages:
            if known.find(language, spoken=True) is None:
                reason = f"{language} is not understood when spoken; this bundle hears {', '.join(known.speech)}"
                raise ProtocolError("invalid_value", reason, "session.audio.input.language")

    def _told(self, event: DomainEvent) -> Iterator[TranslationServerEvent]:
        elapsed_ms = event.at_sample * 1000 // SAMPLE_RATE
        match event:
            case Heard() if self._settings.transcription and event.text:
                delta = f" {event.text}" if self._has_heard else event.text
                self._has_heard = True
                yield InputTranscriptDelta(delta=delta, elapsed_ms=elapsed_ms)
            case ReplySentence() if event.text:
                delta = f" {event.text}" if self._has_said else event.text
                self._has_said = True
                yield OutputTranscriptDelta(delta=delta, elapsed_ms=elapsed_ms)
            case ReplyAudio():
                sound = base64.b64encode(self._encoder.push(event.samples)).decode("ascii")
                yield OutputAudioDelta(delta=sound, elapsed_ms=elapsed_ms)
            case Warned():
                yield error_event(ProtocolError(f"{event.stage}_failed", event.message, kind="server_error"))
            case SessionEnded():
                yield TranslationClosed()
            case _:
                pass

    @property
    def _session(self) -> TranslationSessionObject:
        settings, defaults = self._settings, self._defaults
        return translation_session(
            self._session_id,
            defaults,
            settings.output_language,
            TranslationInputObject(
                language=settings.language,
                transcription=TranslationTranscriptionObject(model=defaults.model) if settings.transcription else None,
            ),
        )


def translation_session(
    session_id: str,
    defaults: SessionDefaults,
    output_language: str | None,
    incoming: TranslationInputObject | None = None,
) -> TranslationSessionObject:
    """A session as this endpoint shows it; listeners, who send nothing, have no incoming sound."""
    languages: Sequence[str] = defaults.languages.text
    return TranslationSessionObject(
        id=session_id,
        model=defaults.model,
        audio=TranslationAudioObject(input=incoming, output=TranslationOutputObject(language=output_language)),
        expires_at=defaults.expires_at or 0,
        languages=list(languages),
    )
