"""`noema`: arguments in, an exit code out. Every error a user can put right becomes one line on stderr.

Light on purpose: torch, pydantic and rich are imported by the subcommands when they run, not here.
"""

import argparse
import io
import os
import sys
import threading
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from agent.commands import doctor, fetch, first_minute, listen, live, replay, serve, sessions, texts, uses
from agent.errors import FAILED, INTERRUPTED, OK, WRONG_INPUT, exit_code, first_known, one_line
from agent.wording import as_typed

_EPILOG = """exit codes:
  0  done
  1  it could not be done here, or a comparison failed
  2  the command or its input is wrong
  130  interrupted

`noema COMMAND --help` has examples.
"""


def build_parser() -> argparse.ArgumentParser:
    """All subcommands."""
    parser = _Parser(
        prog="noema",
        description="A live agent that thinks in concepts: it hears, answers and interprets, offline.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (serve, live, listen, replay, texts, uses, fetch, doctor, sessions, first_minute):
        module.add_parser(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong; of subcommands too."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuses what is unknown here, where the options are known that may have been meant."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            close = get_close_matches(rest[0].partition("=")[0], self._option_string_actions, 1)
            self.error(f"{rest[0]} means nothing here" + (f", perhaps {close[0]} was meant" if close else ""))
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuses what is not among the choices, with the nearest of those that help lists."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices if choice != first_minute.NAME]
        close = get_close_matches(str(value), known, 1)
        told = f"perhaps {close[0]} was meant" if close else f"choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}, {told}")

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        said = " ".join(message.split()).removeprefix("argument ")
        self.exit(WRONG_INPUT, as_typed(f"noema: {said.removesuffix('.')}; see `{self.prog} --help`\n"))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `noema`."""
    _open_streams()
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary to the user
        known = first_known(error)
        if isinstance(known, BrokenPipeError):
            # Whoever read our output has enough. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK
        return _report(known)
    return code


def run() -> NoReturn:
    """Runs `noema` as a process, and ends it.

    A model that is still being loaded, on its own thread, cannot be stopped. Python would take torch apart under it,
    which aborts the process; so then it goes at once.
    """
    code = main()
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _open_streams() -> None:
    """A closed stream is an empty one; input, and names of files, that are no UTF-8 do no harm."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _report(error: BaseException) -> int:
    if os.environ.get("NOEMA_DEBUG"):
        raise error
    code = exit_code(error)
    if code is None:
        print(
            f"noema: a fault in noema itself ({type(error).__name__}: {one_line(error)}); "
            "please report it with what NOEMA_DEBUG=1 prints",
            file=sys.stderr,
        )
        return FAILED
    print(as_typed(f"noema: {one_line(error)}"), file=sys.stderr)
    return code
