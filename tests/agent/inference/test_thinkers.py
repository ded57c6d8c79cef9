"""Thinkers that run here: the bank's, and the model's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.config import ThinkerConfig
from agent.core.context import Conversation
from agent.core.events import Task
from agent.core.inputs import EncodeText, Think
from agent.inference.kept_conversations import KeptConversations
from agent.inference.models import Models
from agent.inference.thinkers import LcmThinker
from lcm.engine import Engine, Sampling
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from tests.small_bundle import DIM


@pytest.fixture(scope="module")
def models(small_bundle: Path) -> Models:
    return Models.load(str(small_bundle), device="cpu", tasks=("converse", "translate", "transcribe"))


def conversation(models: Models, *turns: str) -> Conversation:
    talk = Conversation(64)
    for turn, text in enumerate(turns, start=1):
        encoded = models.encode_text(EncodeText(0, turn, 0, text, "eng"))
        talk.said(turn, "user", encoded.concepts, encoded.texts, "eng")
    return talk


def think(talk: Conversation, turn: int, language: str = "eng", task: Task = "converse") -> Think:
    return Think(0, turn, talk.view(), task, language)


def test_the_bank_answers_in_the_language_asked_for(models: Models) -> None:
    talk = conversation(models, "The cat is hungry.")
    for language in ("eng", "fra", "spa", "deu"):
        parts = list(models.think(think(talk, 1, language)))
        assert 1 <= len(parts) <= 2
        assert all(part.text is not None and part.text.startswith(language) for part in parts)


def test_the_bank_does_not_repeat_itself(models: Models) -> None:
    talk = Conversation(64)
    said: list[str] = []
    encoded = models.encode_text(EncodeText(0, 0, 0, "The cat is hungry.", "eng"))
    for turn in range(1, 5):
        talk.said(turn, "user", encoded.concepts, None, "eng")
        for part in models.think(think(talk, turn)):
            assert part.text is not None
            said.append(part.text)
            talk.agent_said(turn, part.concept, part.text, "eng")
    assert len(said) == len(set(said))


def test_translate_says_what_it_is_handed_of_the_user(models: Models) -> None:
    talk = conversation(models, "The cat is hungry.", "Where is it? Good morning.")
    talk.agent_said(2, np.ones(DIM, np.float32), "Good morning.", "eng")
    parts = list(models.think(think(talk, 2, "deu", "translate")))
    assert len(parts) == 3
    assert all(part.text is None and part.concept is not None for part in parts)


def test_the_model_itself_stops_in_time(small_bundle: Path) -> None:
    models = Models.load(
        str(small_bundle), device="cpu", tasks=("converse",), thinker=ThinkerConfig(name="lcm", max_concepts=3)
    )
    parts = list(models.think(think(conversation(models, "The cat is hungry."), 1)))
    assert 1 <= len(parts) <= 3
    assert all(part.concept is not None and part.concept.shape == (DIM,) for part in parts)


def test_the_model_draws_as_the_engine_does_for_the_same_seed() -> None:
    torch.manual_seed(0)
    config = TwoTowerConfig(
        concept_dim=DIM, dim=32, layers=2, heads=4, ffn_dim=48, context=8, denoiser_layers=2, turns=False
    )
    engine = Engine(TwoTower(config), sampling=Sampling(steps=4))
    context = torch.randn(3, DIM)
    talk = Conversation(64)
    talk.said(1, "user", context.numpy(), None, "eng")
    replies = {}
    for seed in (5, 6):
        [replies[seed]] = engine.predict([context], [torch.zeros(3)], 3, [seed])
        thought = LcmThinker(KeptConversations(engine), 3).think(Think(0, 1, talk.view(), "converse", "eng", seed=seed))
        said = np.stack([part.concept for part in thought if part.concept is not None])
        assert said.shape == (3, DIM)
        np.testing.assert_allclose(said, replies[seed], atol=1e-4)
    assert not torch.allclose(replies[5], replies[6], atol=1e-2)


def test_where_nobody_said_anything_the_bank_is_asked_all_the_same(models: Models) -> None:
    talk = conversation(models, "The cat is hungry.")
    assert list(models.think(think(talk, 2)))
    assert list(models.think(think(Conversation(8), 1))) == []
