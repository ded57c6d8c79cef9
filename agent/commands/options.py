"""Options that several subcommands share, and how settings and options meet. Light: argparse only."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.config import AgentConfig

TASKS = ("converse", "translate", "transcribe")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
BACKENDS = ("noema", "sonar-space")
VARIANTS = (
    *("base", "base_mse", "base_ce", "one_step", "one_tower", "planning"),
    *("quant_c", "quant_d", "two_tower", "two_tower_few"),
)
LANGUAGE_HELP = (
    "ISO 639-3 (default: eng); several, as eng,fra, or auto, all that the bundle hears: found out for each utterance; "
    "for text name one"
)


def subparser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, examples: str
) -> argparse.ArgumentParser:
    """A subcommand with its examples."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--config, --bundle, --device, --precision, --backend."""
    parser.add_argument("--config", type=Path, metavar="F", help="settings (default: those of configs/agent.yaml)")
    parser.add_argument(
        "--bundle", metavar="NAME", help="mini, sonar (see `noema fetch`), or a folder that holds a bundle.json"
    )
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of the weights; less takes less memory (default: float32)"
    )
    parser.add_argument("--backend", choices=BACKENDS, help="whose modules compute the concepts (default: noema)")


def add_conversation_options(parser: argparse.ArgumentParser) -> None:
    """--language, --task, --to, --thinker, --variant."""
    parser.add_argument("--language", metavar="L", help=f"what is spoken or typed, {LANGUAGE_HELP}")
    parser.add_argument("--to", metavar="L", help="language of the reply (default: the speaker's, of each turn)")
    parser.add_argument("--task", choices=TASKS, help="what to do with what is heard (default: converse)")
    add_thinker_options(parser)


def add_thinker_options(parser: argparse.ArgumentParser) -> None:
    """--thinker, --variant."""
    parser.add_argument("--thinker", choices=("retrieve", "lcm", "openai"), help="who answers a conversation")
    parser.add_argument(
        "--variant", metavar="V", choices=VARIANTS, help="with which model of the bundle, as two_tower (default: base)"
    )


def add_server_options(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """--url, --token-file, --token, --ca."""
    shown = f" (default: {default})" if default else ""
    parser.add_argument(
        "--url", metavar="U", default=default, help=f"a server elsewhere, as ws://192.0.2.7:8765{shown}"
    )
    parser.add_argument("--token-file", type=Path, metavar="F", help="its token, where NOEMA_TOKEN does not hold it")
    parser.add_argument("--token", metavar="T", help="the same; other users of this machine can read it here, with ps")
    parser.add_argument(
        "--ca", type=Path, metavar="F", help="certificate (PEM) that vouches for the server, or its own"
    )


def check_task(config: "AgentConfig", to: str | None) -> None:
    """A task and the language of its replies, as far as the bundle does not matter."""
    if config.task == "translate" and to is None:
        raise UsageError("translate into which language? Give --to, for instance --to fra")
    if config.task == "transcribe" and to is not None:
        raise UsageError("transcribe writes what was said in its own language; for another use --task translate")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def settings(args: argparse.Namespace) -> "AgentConfig":
    """The settings of --config, with what was given on the command line on top."""
    from agent.config import load_config

    config = load_config(args.config)
    given = {
        name: value
        for name in ("bundle", "device", "precision", "backend", "language", "task")
        if (value := getattr(args, name, None)) is not None
    }
    thinker = {"name": getattr(args, "thinker", None), "variant": getattr(args, "variant", None)}
    named = {name: value for name, value in thinker.items() if value is not None}
    given["thinker"] = config.thinker.model_copy(update=named)
    if getattr(args, "vad", None):
        given["vad"] = config.vad.model_copy(update={"name": args.vad})
    return config.model_copy(update=given)


def print_json(content: dict[str, Any]) -> None:
    """One object on one line of stdout."""
    print(json.dumps(content, ensure_ascii=False), flush=True)


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"noema: {message}", file=sys.stderr, flush=True)
