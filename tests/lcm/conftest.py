"""Fixtures of the concept space and the models."""

from pathlib import Path

import pytest

from lcm.space import ConceptSpace
from tests.small_bundle import write_small_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every part, the real modules at a hundredth of their size."""
    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="session")
def small_space(small_bundle: Path) -> ConceptSpace:
    """The concept space of the small bundle."""
    return ConceptSpace.load(small_bundle, device="cpu")
