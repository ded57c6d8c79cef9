"""What pyproject.toml and constraints.txt promise."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


def requirements(*, extras: bool) -> list[Requirement]:
    lines = list(PROJECT["project"]["dependencies"])
    if extras:
        for extra in ("train", "bench", "dev"):
            lines += PROJECT["project"]["optional-dependencies"][extra]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "noema"]


@pytest.mark.parametrize("requirement", requirements(extras=True), ids=lambda r: r.name)
def test_every_requirement_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_torch_is_bounded_above() -> None:
    torch = next(requirement for requirement in requirements(extras=False) if requirement.name == "torch")
    assert not torch.specifier.contains("2.14.0")


@pytest.mark.parametrize("package", ["agent", "audio", "configs", "lcm", "scripts"])
def test_our_packages_are_not_shadowed_by_an_installed_one(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ == str(ROOT / package / "__init__.py")


def test_every_folder_with_code_is_a_package() -> None:
    missing = {
        path.parent.relative_to(ROOT)
        for package in ("agent", "audio", "configs", "lcm", "scripts")
        for path in (ROOT / package).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert missing == set()
