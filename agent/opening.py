"""Opening: settings in, running parts out: the model worker, the voice, the detectors; closed in order."""

import zlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from agent.config import AgentConfig
from agent.core.events import Task
from agent.core.turn_options import TurnOptions
from agent.inference.model_worker import ModelWorker
from agent.inference.models import Models, needed_parts
from agent.language_choice import is_open, named
from agent.metrics import Metrics
from agent.session import Parts
from audio.vad import load_vad
from audio.voice import Voice, VoiceOptions


@dataclass(frozen=True, slots=True)
class Opened:
    """What every session of this process shares."""

    config: AgentConfig
    worker: ModelWorker
    voice: Voice | None

    def parts(self, session: int = 0) -> Parts:
        """Parts of one session: the shared ones, a detector and measurements of its own."""
        return Parts(self.worker, load_vad(self.config.vad.name), self.voice, Metrics(), session)

    def turn_options(
        self,
        languages: Sequence[str],
        reply_language: str | None,
        task: Task | None = None,
        *,
        live: bool = False,
        session: str = "",
    ) -> TurnOptions:
        """The options of one session: what the settings say, and what its thinker and its voice ask for.

        Models that draw replies by lot draw others in a session of another name.
        """
        remote = self.worker.models.remote("converse")
        options = self.config.turn_options(
            task=task or self.config.task,
            languages=languages,
            reply_language=reply_language,
            spoken_reply=self.voice is not None,
            words_first=remote is not None and remote.words_first,
            costly=remote is not None and not remote.speculative,
            live=live,
        )
        return replace(options, seed=zlib.crc32(session.encode()))


def checked_languages(
    models: Models, choice: str, reply_language: str | None, *, speech: bool
) -> tuple[tuple[str, ...], str | None]:
    """What is spoken and what is replied in, as the bundle writes them, or an error that lists those it knows."""
    reply = models.check_language(reply_language) if reply_language else None
    return models.check_languages(choice, speech=speech), reply


@asynccontextmanager
async def opened(
    config: AgentConfig,
    tasks: Sequence[Task],
    *,
    spoken: bool,
    heard: bool = True,
    typed: bool = False,
    live: bool = False,
    check: Callable[[Models], object] = lambda models: None,
) -> AsyncGenerator[Opened, None]:
    """Loads the models (on their own thread) and starts the voice.

    Args:
        config: the settings.
        tasks: what the sessions do.
        spoken: whether replies are spoken.
        heard: whether users speak. What they do not do is loaded only if it turns out to be needed.
        typed: whether they type.
        live: whether they wait: the first turn is then to be as quick as the next.
        check: called before the weights are loaded, as `Models.load` does.
    """
    async with AsyncExitStack() as stack:
        worker = ModelWorker(lambda: _models(config, tasks, check, heard=heard, typed=typed, live=live))
        options = VoiceOptions(config.voice.rate_wpm, config.voice.pitch, variant=config.voice.variant)
        voice = await stack.enter_async_context(Voice(options)) if spoken else None
        await stack.enter_async_context(worker)
        yield Opened(config, worker, voice)


def _models(
    config: AgentConfig,
    tasks: Sequence[Task],
    check: Callable[[Models], object],
    *,
    heard: bool,
    typed: bool,
    live: bool,
) -> Models:
    # What was typed is known in words, and so are the replies of those who answer in words.
    said = heard or config.thinker.name == "lcm" or any(task != "converse" for task in tasks)
    models = Models.load(
        config.bundle,
        device=config.device,
        precision=config.precision,
        backend=config.backend,
        parts=needed_parts(typed=typed, heard=named(config.language) if heard else (), said=said),
        tasks=tasks,
        thinker=config.thinker,
        check=check,
    )
    if is_open(config.language) and heard:
        models.prepare_to_identify(config.language)
    if live:
        heard = heard and bool(models.space.languages["speech"])
        models.warm_up(models.check_languages(config.language, speech=heard)[0], heard=heard, typed=typed)
    return models
