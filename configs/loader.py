"""Loader: a YAML file in, a checked object of the wanted shape out, or one line saying what is wrong where.

Receives a file and a shape: a pydantic model or a dataclass, which may hold others. Strict: a setting that
the shape does not have is an error, and so is one given twice. Nothing is taken from the environment. Knows
nothing of what the settings are for.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

Shape = TypeVar("Shape")
Place = tuple[str | int, ...]
"""The way to a setting: `("thinker", "name")`."""


class ConfigError(Exception):
    """The settings cannot be used. The message starts with file and line."""


class Settings(BaseModel):
    """Base of settings: nothing beside the declared fields, and read only."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def packaged_config(name: str) -> Path:
    """The path of a file that lies in this package, such as `agent.yaml` or `training/text.yaml`."""
    folder = Path(__file__).parent
    path = folder / name
    if not path.is_file():
        known = sorted(str(found.relative_to(folder)) for found in folder.rglob("*.yaml"))
        raise ConfigError(f"no settings called {name}{_suggest(name, known)}")
    return path


def load_config(path: Path, shape: type[Shape]) -> Shape:
    """Reads a YAML file as `shape`. An empty file gives the defaults."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    return parse_config(text, shape, source=str(path))


def parse_config(text: str, shape: type[Shape], *, source: str) -> Shape:
    """Reads YAML text as `shape`; `source` is what error messages call it."""
    content, lines = _read_yaml(text, source)
    problems = [*_unknown_settings(content, shape), *_invalid_settings(content, shape)]
    if not problems:
        return TypeAdapter(shape).validate_python(content)
    place, message = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ConfigError(f"{source}:{_line_of(place, lines)}: {message}{more}")


# --- YAML ------------------------------------------------------------------------------------------------


class _StrictLoader(yaml.SafeLoader):
    """Scalars as YAML 1.2 has them, not 1.1: there `no` is false, `1e-3` a text and `1:30` is ninety."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's way to start from none)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan"))


_INT = r"[-+]?[0-9]+"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def _read_yaml(text: str, source: str) -> tuple[dict[Any, Any], dict[Place, int]]:
    """The content, and the line on which each place of it stands, counted from 1."""
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            return {}, {}
        lines = dict(_lines(node, source))
        content = loader.construct_document(node)
    except RecursionError as error:
        raise ConfigError(f"{source}: an alias that holds itself, or far too many levels") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{source}:1: expected settings, one `name: value` a line")
    return content, lines


def _lines(node: yaml.Node, source: str, place: Place = ()) -> Iterable[tuple[Place, int]]:
    """Yields every place with its line; refuses a name that is given twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{source}:{line}: the name of a setting must be a word")
            if key.value in seen:
                raise ConfigError(f"{source}:{line}: {_spell((*place, key.value))} is set twice")
            seen.add(key.value)
            yield (*place, key.value), line
            yield from _lines(value, source, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*place, index), item.start_mark.line + 1
            yield from _lines(item, source, (*place, index))


def _line_of(place: Place, lines: Mapping[Place, int]) -> int:
    """The line of a place, or of the nearest thing around it that stands in the file."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


# --- what is wrong ---------------------------------------------------------------------------------------

_KINDS = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "settings, as {name: value}",
    "model": "settings, as {name: value}",
    "dataclass": "settings, as {name: value}",
}
"""What `pydantic` calls kinds of values, as the parts of its errors' names"""


def _unknown_settings(content: object, shape: object, place: Place = ()) -> Iterable[tuple[Place, str]]:
    """Yields the names that the shape lacks. pydantic lets them pass in dataclasses, and suggests nothing."""
    if isinstance(content, Mapping):
        structures = list(_structures(shape))
        fields = {name: hint for structure in structures for name, hint in _fields(structure).items()}
        item_shape = _item_shape(shape)
        for name, value in content.items():
            if structures and item_shape is None and name not in fields:
                hint = _suggest(str(name), sorted(fields))
                yield (*place, name), f"unknown setting {_spell((*place, name))}{hint}"
            else:
                yield from _unknown_settings(value, fields.get(name, item_shape), (*place, name))
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for index, item in enumerate(content):
            yield from _unknown_settings(item, _item_shape(shape), (*place, index))


def _invalid_settings(content: object, shape: type[Shape]) -> Iterable[tuple[Place, str]]:
    """Yields the values that pydantic refuses, in its words, with a guess at the choice that was meant."""
    try:
        TypeAdapter(shape).validate_python(content)
    except ValidationError as error:
        for problem in error.errors():
            if problem["type"] in (
                "extra_forbidden",
                "unexpected_keyword_argument",
            ):  # told above, and better
                continue
            place = problem["loc"]
            if problem["type"] == "missing":
                yield place, f"{_spell(place)} is missing"
                continue
            message = _kind(problem["type"]) or problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            choices = re.findall(r"'([^']*)'", str(problem.get("ctx", {}).get("expected", "")))
            hint = _nearest(str(problem["input"]), choices)
            given = "" if _says_itself(problem) else f", not {_as_written(problem['input'])}"
            yield place, f"{_spell(place) or 'the settings'}: {message}{given}{hint}"


def _kind(problem: str) -> str:
    """What a value should be that is of another kind, in words for whoever writes YAML rather than Python."""
    kind, _, how = problem.partition("_")
    return f"should be {_KINDS[kind]}" if kind in _KINDS and how in ("type", "parsing", "from_float") else ""


def _as_written(value: object) -> str:
    """As YAML has it."""
    if value is None:
        return "nothing"
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def _says_itself(problem: Mapping[str, Any]) -> bool:
    """Whether it is a structure's own check, which names what is wrong in it."""
    return problem["type"] == "value_error" and isinstance(problem["input"], Mapping)


def _structures(shape: object) -> Iterable[type]:
    """The models and dataclasses that a value of this type may be: `Voice | None` gives `Voice`."""
    if isinstance(shape, type) and (issubclass(shape, BaseModel) or dataclasses.is_dataclass(shape)):
        yield shape
    elif typing.get_origin(shape) in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(shape):
            yield from _structures(part)


def _fields(structure: type) -> dict[str, object]:
    """Names a structure takes, each with its type."""
    if issubclass(structure, BaseModel):
        return {field.alias or name: field.annotation for name, field in structure.model_fields.items()}
    assert dataclasses.is_dataclass(structure), "_structures yields nothing else"
    hints = typing.get_type_hints(structure)
    return {field.name: hints[field.name] for field in dataclasses.fields(structure) if field.init}


def _item_shape(shape: object) -> object:
    """What a list, tuple or dict of this type holds; None where it is none of these."""
    origin = typing.get_origin(shape)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return next(filter(None, map(_item_shape, typing.get_args(shape))), None)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return typing.get_args(shape)[1]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return typing.get_args(shape)[0]
    return None


def _suggest(given: str, known: Sequence[str]) -> str:
    return _nearest(given, known) or (f"; known: {', '.join(known)}" if known else "")


def _nearest(given: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _spell(place: Place) -> str:
    return ".".join(map(str, place))
