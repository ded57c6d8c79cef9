"""docs/SERVER.md names what there is: every metric, and settings that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import ServerConfig
from tests.agent.server.running import RunningServer, running
from tests.noema_command import ROOT

PAGE = (ROOT / "docs" / "SERVER.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def live(small_bundle: Path) -> Iterator[RunningServer]:
    with running(str(small_bundle)) as server:
        yield server


def test_every_metric_is_described(live: RunningServer) -> None:
    families = {family.name for family in live.server.telemetry.registry.collect()}
    told = {name.removesuffix("_total") for name in re.findall(r"`(noema_[a-z_]+)", PAGE)}
    assert told == {name.removesuffix("_total") for name in families}


def test_every_setting_it_names_exists() -> None:
    named = set(
        re.findall(
            r"`(?:server\.)?((?:max|ping|idle|session|outbox|drain|detached|keep|handshake|worker)_[a-z_]+)`", PAGE
        )
    )
    assert named
    assert named <= set(ServerConfig.model_fields)


def test_every_limit_is_explained_in_the_settings_that_ship() -> None:
    lines = (ROOT / "configs" / "agent.yaml").read_text(encoding="utf-8").partition("\nserver:")[2].splitlines()
    settings = {line.split(":")[0].strip(): line for line in lines if re.match(r"  [a-z_]+:", line)}
    assert set(settings) >= set(ServerConfig.model_fields) - {"port"}
    assert [name for name, line in settings.items() if "#" not in line and name != "port"] == []
