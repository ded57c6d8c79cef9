"""Defaults of a session: what the settings and the loaded bundle say, in the wire's terms."""

import time
from typing import get_args

from agent.core.events import Task
from agent.opening import Opened
from agent.realtime.defaults import Bounds, KnownLanguages, Limits, SessionDefaults
from agent.realtime.session_object import ListenersOffer, ResumeOffer
from audio.languages import VARIANTS


def session_defaults(there: Opened, token: str | None, listeners: ListenersOffer | None = None) -> SessionDefaults:
    """What a session is like before its client says anything.

    Args:
        there: what runs here.
        token: by which the client may come back; None: sessions are not kept.
        listeners: how others may listen; None: nobody may.
    """
    from lcm.space.languages import known_languages

    config = there.config
    models, space = there.worker.models, there.worker.models.space
    segmenter = config.segmenter.options(config.vad.name)
    return SessionDefaults(
        languages=KnownLanguages(
            tuple(space.languages["text"]),
            tuple(space.languages["speech"]),
            {known.two_letters: known.tag.partition("_")[0] for known in known_languages() if known.two_letters},
        ),
        task=config.task,
        tasks=tuple(task for task in get_args(Task) if models.remote(task) or models.thinks(task)),
        language=config.language,
        can_speak=there.voice is not None,
        reads_words=(remote := models.remote("converse")) is not None and remote.words_first,
        voices=tuple(VARIANTS),
        voice=config.voice.variant,
        threshold=segmenter.threshold,
        prefix_padding_ms=config.segmenter.pre_roll_ms,
        silence_duration_ms=config.segmenter.hangover_ms,
        bounds=Bounds(
            prefix_padding_ms=(0, min(1000, segmenter.longest_pre_roll_ms)),
            silence_duration_ms=(segmenter.soft_pause_ms, min(4000, segmenter.longest_hangover_ms)),
        ),
        limits=Limits(items=config.server.max_items),
        space_id=space.space_id,
        dim=space.dim,
        expires_at=int(time.time() + config.server.session_s),
        records=config.record,
        may_record=config.server.client_recording,
        resume=None if token is None else ResumeOffer(token=token, keep_s=config.server.keep_s),
        listeners=listeners,
    )
