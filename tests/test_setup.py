"""scripts/run sets things up: in a folder with a space in its name, once, and never by halves.

Each test runs the real scripts and the real pip in a small checkout, whose only package is built by a backend
in the same folder: no network, and seconds in place of a minute. Making a virtual environment takes five more,
so only the first start does it; the tests about locks and interruptions copy the one it made.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[1]
BACKEND = Path(__file__).with_name("tiny_backend.py")
PYPROJECT = """
[build-system]
requires = []
build-backend = "tiny_backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1.0"

[tool.ruff]
line-length = 100
"""
AGENT = """
import os, sys
print(sys.argv[1:], os.getcwd(), flush=True)
if "hint" in sys.argv:
    print(os.environ["NOEMA_COMMAND"])
if "wait" in sys.argv:
    sys.stdin.read()
sys.exit(7 if "seven" in sys.argv else 0)
"""


Completed: TypeAlias = "subprocess.CompletedProcess[str]"


class Checkout:
    """A folder with our scripts and next to nothing else in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "NOEMA_", "COV_"))
        } | {"PIP_NO_INDEX": "1", "NOEMA_TORCH_INDEX": "default", "NOEMA_PYTHON": sys.executable}
        (root / "scripts").mkdir(parents=True)
        (root / "agent").mkdir()
        for name in ("run", "test", "setup.sh"):
            shutil.copy(ROOT / "scripts" / name, root / "scripts" / name)
        shutil.copy(BACKEND, root)
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / "constraints.txt").write_text("torch==2.13.0\n")
        (root / "agent" / "__init__.py").write_text("")
        (root / "agent" / "__main__.py").write_text(AGENT)

    def start(self, *args: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.root / "scripts" / "run"), *args],
            cwd=self.root.parent,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # so that a signal can go to all of it, as a terminal's Ctrl-C does
        )

    def run(self, *args: str, **environment: str) -> Completed:
        process = self.start(*args, **environment)
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def leftovers(self) -> set[str]:
        """What set-up has put into the folder."""
        return {path.name for path in self.root.glob(".venv*")}

    def hold_pip(self) -> None:
        """Makes pip's build wait for as long as the file is there."""
        (self.root / "hold").touch()

    def pip_is_held(self) -> bool:
        return (self.root / "held").exists()

    def release_pip(self) -> None:
        (self.root / "hold").unlink()
        (self.root / "held").unlink()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute in vain"
        time.sleep(0.02)


def script(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def new_checkout(folder: Path) -> Iterator[Checkout]:
    checkout = Checkout(folder / "a folder" / "it's noema")
    yield checkout
    (checkout.root / "hold").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Checkout, Completed]]:
    """A checkout and what its first start gave."""
    for checkout in new_checkout(tmp_path_factory.mktemp("ready")):
        (checkout.root.parent / "agent").mkdir()  # a folder of the caller's with the name of ours
        yield checkout, checkout.run("seven", "two words", "")


@pytest.fixture
def ready(first_start: tuple[Checkout, Completed]) -> Checkout:
    """A checkout that is set up already."""
    return first_start[0]


@pytest.fixture
def checkout(tmp_path: Path, ready: Checkout) -> Iterator[Checkout]:
    """A fresh one, whose Python makes environments by copying."""
    template = tmp_path / "template"
    shutil.copytree(ready.root / ".venv", template, symlinks=True)
    (template / "noema-stamp").unlink()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = script(
        tmp_path / "python3",
        f'if [ "$1" = -c ]; then echo "complete {version} $0"; else cp -a "{template}/." "$3"; fi\n',
    )
    for checkout in new_checkout(tmp_path):
        checkout.environment["NOEMA_PYTHON"] = str(python)
        yield checkout


def test_the_first_start_sets_up_and_runs_where_the_caller_stands(
    first_start: tuple[Checkout, Completed],
) -> None:
    checkout, done = first_start
    assert done.returncode == 7
    assert done.stdout == f"['seven', 'two words', ''] {checkout.root.parent}\n"
    assert "setting up" in done.stderr
    assert checkout.leftovers() == {".venv", ".venv-setup.log"}


def test_the_second_start_says_nothing_and_adds_less_than_300_ms(ready: Checkout) -> None:
    python = [str(ready.root / ".venv/bin/python"), "-P", "-m", "agent", "x"]
    added = []
    for _ in range(5):
        began = time.perf_counter()
        second = ready.run("x")
        between = time.perf_counter()
        subprocess.run(python, check=True, capture_output=True)
        added.append((between - began) - (time.perf_counter() - between))
        assert second.stderr == ""
    assert min(added) < 0.3


def test_without_arguments_comes_the_first_minute(ready: Checkout) -> None:
    assert ready.run().stdout.startswith("['first-minute'] ")


def test_it_works_through_a_symbolic_link(ready: Checkout, tmp_path: Path) -> None:
    (tmp_path / "noema").symlink_to(ready.root / "scripts" / "run")
    done = subprocess.run([tmp_path / "noema", "x"], env=ready.environment, capture_output=True, check=True)
    assert done.stdout.startswith(b"['x'] ")


def test_hints_name_the_command_as_it_was_typed(ready: Checkout) -> None:
    command = [os.path.relpath(ready.root / "scripts" / "run", ready.root.parent), "hint"]
    done = subprocess.run(
        command, cwd=ready.root.parent, env=ready.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == command[0]


def test_signals_reach_the_program(ready: Checkout) -> None:
    process = subprocess.Popen(
        [str(ready.root / "scripts" / "run"), "wait"],
        env=ready.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"['wait']")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_new_requirements_are_installed_in_place_and_new_lint_settings_change_nothing(
    ready: Checkout,
) -> None:
    (ready.root / ".venv" / "mine").touch()
    pyproject = ready.root / "pyproject.toml"
    pyproject.write_text(PYPROJECT.replace("line-length = 100", "line-length = 90"))
    assert ready.run().stderr == ""
    pyproject.write_text(PYPROJECT.replace('version = "1.0"', 'version = "1.1"'))
    assert "bringing" in ready.run().stderr
    assert (ready.root / ".venv" / "mine").exists()
    assert ready.run().stderr == ""


def test_an_update_that_fails_leaves_what_worked(ready: Checkout) -> None:
    pyproject = ready.root / "pyproject.toml"
    before = pyproject.read_text()
    pyproject.write_text(PYPROJECT + '[project.scripts]\nbroken = "yes"\n')
    assert ready.run("x").returncode == 1
    pyproject.write_text(before)
    assert ready.run("x").stderr == ""


def test_a_moved_checkout_is_set_up_again(ready: Checkout, tmp_path: Path) -> None:
    there = ready.root
    ready.root = there.rename(tmp_path / "moved")
    done = ready.run("x")
    assert "setting up" in done.stderr
    assert done.stdout == f"['x'] {tmp_path}\n"
    ready.root = ready.root.rename(there)


def test_ctrl_c_during_set_up_leaves_nothing(checkout: Checkout) -> None:
    checkout.hold_pip()
    process = checkout.start("x")
    wait_until(checkout.pip_is_held)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing half-made is left" in err
    assert checkout.leftovers() == {".venv-setup.log"}


def test_two_at_once_set_up_one_after_the_other(checkout: Checkout) -> None:
    checkout.hold_pip()
    first = checkout.start("first")
    wait_until(checkout.pip_is_held)
    second = checkout.start("second")
    assert second.stderr is not None
    assert "another set-up is under way" in second.stderr.readline()
    checkout.release_pip()
    assert first.communicate(timeout=60)[0].startswith("['first']")
    out, err = second.communicate(timeout=60)
    assert out.startswith("['second']")
    assert err == ""
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_set_up_killed_outright_is_begun_anew(checkout: Checkout) -> None:
    checkout.hold_pip()
    process = checkout.start("x")
    wait_until(checkout.pip_is_held)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert checkout.leftovers() == {".venv", ".venv-setup.log", ".venv.lock", ".venv.child"}
    again = checkout.start("x")
    wait_until(lambda: not (checkout.root / ".venv.child").exists())  # it has ended what was left behind
    checkout.release_pip()
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert checkout.leftovers() == {".venv", ".venv-setup.log"}


def test_a_failing_install_shows_the_end_of_its_log_and_leaves_nothing(checkout: Checkout) -> None:
    (checkout.root / "pyproject.toml").write_text(PYPROJECT + '[project.scripts]\nbroken = "yes"\n')
    done = checkout.run("x")
    assert done.returncode == 1
    assert "the tiny backend was told to fail" in done.stderr
    assert f"The whole log: {checkout.root}/.venv-setup.log" in done.stderr
    assert done.stderr.endswith("noema: installing the packages failed.\n")
    assert checkout.leftovers() == {".venv-setup.log"}


def test_an_environment_of_the_users_own_is_moved_aside_not_deleted(checkout: Checkout) -> None:
    (checkout.root / ".venv").mkdir()
    (checkout.root / ".venv" / "precious").touch()
    assert "it is now .venv.before-noema" in checkout.run().stderr
    assert (checkout.root / ".venv.before-noema" / "precious").exists()


def test_a_python_without_ensurepip_is_named(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "ensurepip.py").write_text("raise ImportError")
    python = script(tmp_path / "python3", f'PYTHONPATH="{tmp_path}/lacking" exec "{sys.executable}" "$@"\n')
    done = checkout.run(NOEMA_PYTHON=str(python))
    assert done.returncode == 1
    assert re.search(r"cannot make virtual environments: (its module ensurepip|Debian keeps)", done.stderr)
    assert checkout.leftovers() == {".venv-setup.log"}


def test_a_python_named_by_the_user_is_never_passed_over(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.run(NOEMA_PYTHON=str(script(tmp_path / "python2", "exit 1\n")))
    assert done.returncode == 1
    assert "python2, which is not a working 64-bit CPython 3.11 to 3.14" in done.stderr


def test_a_shim_with_no_python_behind_it_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "python3", "echo 'pyenv: python3: command not found' >&2; exit 127\n")
    script(tmp_path / "python3.14", f'exec "{sys.executable}" "$@"\n')
    find = f'ROOT="{ROOT}"; . "$ROOT/scripts/setup.sh"; find_python; echo "$python_version $python"'
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", find], env=environment, capture_output=True, text=True, check=True)
    base = getattr(sys, "_base_executable", sys.executable)
    assert done.stdout == f"{sys.version_info.major}.{sys.version_info.minor} {base}\n"


def test_scripts_pass_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: apt install shellcheck")
    paths = ["scripts/run", "scripts/test", "scripts/setup.sh", ".ci/run"]
    done = subprocess.run(["shellcheck", "-x", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
