"""Session update: a patch in, the next settings and the warnings on the way out.

Nothing is ignored in silence: what cannot be had shows its effective value in `session.updated`, and comes back as a
warning for clients that take those. A patch that is wrong changes nothing.
"""

from dataclasses import replace
from typing import Any, TypeVar

from agent.core.events import Task
from agent.realtime.defaults import SessionDefaults
from agent.realtime.problems import ProtocolError
from agent.realtime.session_object import (
    AudioPatch,
    InputPatch,
    NoemaPatch,
    OutputPatch,
    ResumeRequest,
    SessionPatch,
    TranscriptionPatch,
    TurnDetectionPatch,
)
from agent.realtime.settings import (
    DEFAULT_VOICE,
    NoemaSettings,
    SessionSettings,
    Transcription,
    TurnDetection,
    spoken_languages,
    unknown_language,
)

NO_READER = "this thinker continues concepts and reads no words"
NO_SAMPLER = "this thinker does not sample"
Number = TypeVar("Number", int, float)


class SessionUpdating:
    """One `session.update` on its way to become settings: the next of them and the warnings on the way."""

    def __init__(self, settings: SessionSettings, defaults: SessionDefaults, *, begun: bool) -> None:
        """Takes settings as they are; `begun`: whether something has been heard or typed already."""
        self.settings = settings
        self.warnings: list[str] = []
        self._defaults = defaults
        self._begun = begun

    def apply(self, patch: SessionPatch) -> None:
        """Takes over what can be had.

        Raises:
            ProtocolError: the patch is wrong.
        """
        if patch.type != "realtime":
            advice = "session.type must be 'realtime'; to transcribe only, set session.noema.task to 'transcribe'"
            raise ProtocolError("invalid_value", advice, "session.type")
        if patch.output_modalities is not None:
            self._set(spoken=self.can_speak("audio" in patch.output_modalities))
        if patch.audio is not None:
            self._audio(patch.audio)
        self._words(patch)
        if patch.noema is not None:
            self._noema(patch.noema)
        self._ignored(patch)

    def can_speak(self, wanted: bool) -> bool:
        """Whether a reply is spoken that was wanted so."""
        if wanted and not self._defaults.can_speak:
            self._warn("output_modalities", "this server has no voice, replies are in words")
        return wanted and self._defaults.can_speak

    def _set(self, **values: Any) -> None:
        self.settings = replace(self.settings, **values)

    def _warn(self, name: str, reason: str) -> None:
        self.warnings.append(f"{name}: {reason}")

    # Sound

    def _audio(self, patch: AudioPatch) -> None:
        if patch.input is not None:
            self._input(patch.input)
        if patch.output is not None:
            self._output(patch.output)

    def _input(self, patch: InputPatch) -> None:
        if patch.format is not None and patch.format.type != self.settings.input_format:
            if self._begun:
                advice = "the input format cannot change once sound has come: open another session"
                raise ProtocolError("invalid_value", advice, "session.audio.input.format")
            self._set(input_format=patch.format.type)
        if "transcription" in patch.model_fields_set:
            self._transcription(patch.transcription)
        if "turn_detection" in patch.model_fields_set:
            self._set(turn_detection=patch.turn_detection and self._detection(patch.turn_detection))
        if patch.noise_reduction is not None:
            self._warn("audio.input.noise_reduction", "there is none; the detector is made for noise")

    def _transcription(self, patch: TranscriptionPatch | None) -> None:
        if patch is None:
            self._set(transcription=None)
            return
        language = None
        if patch.language is not None:
            language = self._defaults.languages.find(patch.language)
            if language is None:
                self._warn("audio.input.transcription.language", f"{patch.language!r} is not covered")
            else:
                self._set(language=language)
        if patch.prompt is not None:
            self._warn("audio.input.transcription.prompt", "what was heard is decoded from concepts alone")
        self._set(transcription=Transcription(language))

    def _detection(self, patch: TurnDetectionPatch) -> TurnDetection:
        if patch.type == "semantic_vad":
            reason = "is done by server_vad, whose silence adapts to the speaker's own pauses"
            self._warn("audio.input.turn_detection", f"semantic_vad {reason}")
            return self._answering(TurnDetection(), patch)
        bounds = self._defaults.bounds
        return self._answering(
            TurnDetection(
                self._bounded("threshold", patch.threshold, bounds.threshold),
                self._bounded("prefix_padding_ms", patch.prefix_padding_ms, bounds.prefix_padding_ms),
                self._bounded("silence_duration_ms", patch.silence_duration_ms, bounds.silence_duration_ms),
                self._bounded("idle_timeout_ms", patch.idle_timeout_ms, bounds.idle_timeout_ms),
            ),
            patch,
        )

    def _answering(self, detection: TurnDetection, patch: TurnDetectionPatch) -> TurnDetection:
        return replace(
            detection,
            create_response=patch.create_response is not False,
            interrupt_response=patch.interrupt_response,
        )

    def _bounded(self, name: str, value: Number | None, bounds: tuple[Number, Number]) -> Number | None:
        if value is None:
            return None
        bounded = min(max(value, bounds[0]), bounds[1])
        if bounded != value:
            self._warn(f"audio.input.turn_detection.{name}", f"{bounds[0]} to {bounds[1]} is possible")
        return bounded

    def _output(self, patch: OutputPatch) -> None:
        if patch.format is not None:
            self._set(output_format=patch.format.type)
        if patch.speed is not None:
            self._set(speed=patch.speed)
        if patch.voice is None:
            return
        if patch.voice in {DEFAULT_VOICE, *self._defaults.voices}:
            self._set(voice=self._defaults.voice if patch.voice == DEFAULT_VOICE else patch.voice)
        else:
            self._warn("audio.output.voice", f"there is no {patch.voice!r}; see noema.voices")

    # Words

    def _words(self, patch: SessionPatch) -> None:
        heeds = self._defaults.reads_words
        if patch.instructions is not None:
            self._set(instructions=patch.instructions if heeds else "")
            if patch.instructions and not heeds:
                self._warn("instructions", NO_READER)
        if "temperature" in patch.model_fields_set:
            self._set(temperature=patch.temperature if heeds else None)
            if patch.temperature is not None and not heeds:
                self._warn("temperature", NO_SAMPLER)

    def _noema(self, patch: NoemaPatch) -> None:
        if patch.language is not None:
            languages = spoken_languages(patch.language, self._defaults)
            deaf = [tag for tag in languages if self._defaults.languages.find(tag, spoken=True) is None]
            if deaf:
                self._warn("noema.language", f"{', '.join(deaf)} can be typed, but is not understood when spoken")
            self._set(language=patch.language)
        if "reply_language" in patch.model_fields_set:
            self._set(reply_language=self._reply_language(patch.reply_language))
        if patch.task is not None:
            self._check_task(patch.task)
            self._set(task=patch.task)
        now = self.settings.noema or NoemaSettings()
        flags = {name: getattr(patch, name) for name in ("concepts", "latency", "meter")}
        self._set(
            noema=replace(
                now,
                **{name: value for name, value in flags.items() if value is not None},
                resume=self._resumable(patch, now),
                forgotten=now.forgotten or (now.resume and patch.resume is False),
                record=self._recorded(patch, asked=now.record),
                listeners=self._listened(patch, asked=now.listeners),
            )
        )

    def _check_task(self, task: Task) -> None:
        if task not in self._defaults.tasks:
            advice = f"the model here does not {task}; choose from {', '.join(self._defaults.tasks)}"
            raise ProtocolError("invalid_value", advice, "session.noema.task")

    def _reply_language(self, name: str | None) -> str | None:
        if name is None:
            return None
        found = self._defaults.languages.find(name)
        if found is None:
            reason = unknown_language(name, self._defaults.languages.text)
            raise ProtocolError("invalid_value", reason, "session.noema.reply_language")
        return found

    def _resumable(self, patch: NoemaPatch, now: NoemaSettings) -> bool:
        if patch.resume is None or isinstance(patch.resume, ResumeRequest):
            return now.resume  # a session that is to come back: the server's own business
        if patch.resume and not now.resume and (self._begun or now.forgotten):
            advice = "ask for resume before the first sound or text, in a session that was not to be forgotten"
            raise ProtocolError("noema_resume_too_late", advice, "session.noema.resume")
        if patch.resume and self._defaults.resume is None:
            self._warn("noema.resume", "this server keeps no sessions")
            return False
        return patch.resume

    def _recorded(self, patch: NoemaPatch, *, asked: bool) -> bool:
        if not patch.record or asked or self._defaults.records:
            return asked
        if not self._defaults.may_record:
            self._warn("noema.record", "this server does not record on demand")
        elif self._begun:
            self._warn("noema.record", "a recording begins before the first sound or text")
        else:
            return True
        return False

    def _listened(self, patch: NoemaPatch, *, asked: bool) -> bool:
        if patch.listeners and self._defaults.listeners is None:
            self._warn("noema.listeners", "this server lets nobody listen")
            return False
        return asked if patch.listeners is None else patch.listeners

    # What does not hold

    def _ignored(self, patch: SessionPatch) -> None:
        if patch.model not in (None, self._defaults.model):
            self._warn("model", f"this session's is {self._defaults.model!r}")
        for name, harmless, reason in _NOT_HAD:
            if getattr(patch, name) not in harmless:
                self._warn(name, reason)
        for name in list(patch.model_extra or {})[:16]:
            if name not in _OF_THE_SERVER:
                self._warn(name[:40], "unknown")


_NOT_HAD: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("tools", (None, []), "there are no tools: concepts call no functions"),
    ("tool_choice", (None, "none", "auto"), "there are no tools"),
    ("max_output_tokens", (None, "inf"), "a reply is a few sentences, as the server is set up"),
    ("truncation", (None, "auto"), "the oldest sentences leave the context"),
    ("include", (None, []), "nothing more is known"),
    ("tracing", (None,), "there is none"),
    ("prompt", (None,), "there are no prompt templates"),
)
"""Field, values that need no warning, reason"""
_OF_THE_SERVER = {"id", "object", "expires_at"}
"""Clients send back what they were shown"""
