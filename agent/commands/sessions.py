"""`noema sessions`: the recorded sessions on this machine."""

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.commands.options import add_json_option, print_json, subparser
from agent.errors import OK, OutputError, RecordingError, UsageError
from agent.wording import as_typed

_EXAMPLES = """
noema sessions list
noema sessions show 20260101-120000
noema sessions export 20260101-120000 --out talk.zip
noema sessions delete 20260101-120000
noema sessions prune --days 7
"""

_WHO = {"Heard": "user", "ReplySentence": "agent"}
_MAX_SAMPLE = 2**63


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describes the subcommand and its own."""
    parser = subparser(commands, "sessions", "list, show, export, delete or prune recorded sessions", _EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every recorded session, the oldest first")
    listing.set_defaults(run=run_list)
    show = actions.add_parser("show", help="what was said")
    show.set_defaults(run=run_show)
    export = actions.add_parser("export", help="a session as one zip file")
    export.add_argument("--out", type=Path, metavar="F.zip", help="default: NAME.zip in this folder")
    export.set_defaults(run=run_export)
    delete = actions.add_parser("delete", help="remove sessions for good")
    delete.set_defaults(run=run_delete)
    prune = actions.add_parser(
        "prune", help="remove the oldest sessions for good, whoever recorded them: --days, --bytes or both"
    )
    prune.add_argument("--days", metavar="D", type=_limit, help="those that ended longer ago")
    prune.add_argument("--bytes", metavar="B", type=_limit, help="as many as it takes for the rest to fit")
    prune.set_defaults(run=run_prune)
    for action in (show, export):
        action.add_argument("session", metavar="NAME", help="as `noema sessions list` gives it")
    delete.add_argument("session", nargs="+", metavar="NAME", help="as `noema sessions list` gives it")
    for action in (listing, show, export, delete, prune):
        add_json_option(action)


def run_list(args: argparse.Namespace) -> int:
    """Lists sessions."""
    from agent.recordings.recording import finalise_unfinished, sessions_folder

    root = sessions_folder()
    finalise_unfinished(root)
    found = [_facts(folder.parent) for folder in sorted(root.glob("*/session.json"))]
    if args.json:
        print_json({"sessions": found, "folder": str(root)})
        return OK
    for facts in found:
        turns = "turn" if facts["turns"] == 1 else "turns"
        print(f"{facts['name']}  {facts['seconds']:7.1f} s  {facts['turns']:3d} {turns:5}  {facts['task']}")
    if not found:
        print(as_typed(f"no sessions in {root}; record one with `noema talk --record`"))
    return OK


def run_show(args: argparse.Namespace) -> int:
    """Shows what was said."""
    folder = _folder(args.session)
    turns = list(_turns(folder))
    if args.json:
        print_json({**_facts(folder), "folder": str(folder), "said": turns})
        return OK
    print(f"{folder}")
    for turn in turns:
        print(f"{turn['seconds']:8.2f} s  {turn['who']:5}  {turn['language']}  {turn['text']}")
    return OK


def run_export(args: argparse.Namespace) -> int:
    """Packs a session into a zip file."""
    folder = _folder(args.session)
    target: Path = args.out or Path(f"{folder.name}.zip")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as aside:
            made = shutil.make_archive(str(Path(aside) / folder.name), "zip", folder.parent, folder.name)
            Path(made).replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}); choose another place") from error
    if args.json:
        print_json({"file": str(target)})
    else:
        print(target)
    return OK


def run_delete(args: argparse.Namespace) -> int:
    """Deletes sessions; all names are checked before the first goes."""
    from agent.recordings.recording import is_recorded_now
    from agent.recordings.retention import delete

    folders = [_folder(name) for name in dict.fromkeys(args.session)]
    for folder in folders:
        if folder.is_symlink():
            raise RecordingError(f"{folder} is a link to {folder.resolve()}; delete that")
        if is_recorded_now(folder):
            raise RecordingError(f"{folder.name} is being recorded; end that session first")
    for folder in folders:
        delete(folder)
        if not args.json:
            print(f"deleted {folder}")
    if args.json:
        print_json({"deleted": [folder.name for folder in folders]})
    return OK


def run_prune(args: argparse.Namespace) -> int:
    """Deletes the oldest sessions beyond the limits, none that is being recorded."""
    from agent.recordings.recording import finalise_unfinished, sessions_folder
    from agent.recordings.retention import Retention, prune

    if args.days is None and args.bytes is None:
        raise UsageError("which may stay? Give --days D, --bytes B or both, for instance --days 30")
    root, limits = sessions_folder(), Retention(args.days, None if args.bytes is None else int(args.bytes))
    finalise_unfinished(root)
    gone = prune(root, limits, served_only=False)
    if args.json:
        print_json({"deleted": [folder.name for folder in gone]})
        return OK
    for folder in gone:
        print(f"deleted {folder}")
    if not gone:
        print(f"nothing to delete in {root}; kept are: {limits}")
    return OK


def _limit(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise argparse.ArgumentTypeError(f"a number from 0 up, not {text}")
    return limit


def _folder(name: str) -> Path:
    from agent.recordings.recording import finalise_abandoned, sessions_folder

    root = sessions_folder()
    folder = root / name
    if name in {"", ".", ".."} or Path(name).name != name or not (folder / "session.json").is_file():
        raise RecordingError(f"no session '{name}' in {root}; see `noema sessions list`")
    finalise_abandoned(folder)
    return folder


def _facts(folder: Path) -> dict[str, Any]:
    """What a list tells of a session; one that is damaged says so, and hides no other."""
    last = turns = 0
    task, created = "damaged", ""
    try:
        for event in _events(folder):
            last = event["at_sample"]
            turns += event["type"] == "TurnCommitted"
        content = json.loads((folder / "session.json").read_text(encoding="utf-8"))
        task, created = str(content["options"]["task"]), str(content["created"])
    except (OSError, RecordingError, ValueError, KeyError, TypeError, RecursionError):
        pass  # as far as it could be read
    return {"name": folder.name, "created": created, "seconds": last / 16_000, "turns": turns, "task": task}


def _turns(folder: Path) -> Iterator[dict[str, Any]]:
    """Who said what; in each turn the user first, though what was heard may be put into words after the reply."""
    said = [event for event in _events(folder) if event["type"] in _WHO]
    for event in sorted(said, key=lambda e: (e.get("turn", 0), _WHO[e["type"]] != "user")):
        yield {
            "seconds": event["at_sample"] / 16_000,
            "who": _WHO[event["type"]],
            "language": str(event.get("language", "")),
            "text": event["text"],
        }


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a session, up to a torn line; raises `RecordingError` at one that is no event."""
    from agent.core.input_log import LogFormatError, parse_line
    from agent.recordings.recorded import read_event_lines

    path = folder / "events.jsonl"
    if not path.exists():
        return
    for number, line in enumerate(read_event_lines(path), start=1):
        try:
            event = parse_line(line)
        except LogFormatError:
            return
        place, text = event.get("at_sample"), event.get("text", None if event["type"] in _WHO else "")
        if type(place) is not int or not 0 <= place < _MAX_SAMPLE or not isinstance(text, str):
            raise RecordingError(f"{path}, line {number}: damaged; delete the session, or mend that line")
        yield event
