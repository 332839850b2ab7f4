"""YAML files from strangers: bounded, safe, and mistakes named by their line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cube.errors import CropcubeError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 30

Model = TypeVar("Model", bound=BaseModel)
Lines = dict[tuple[str | int, ...], int]


def read_yaml(path: str | Path, model: type[Model], fault: type[CropcubeError]) -> Model:
    """Read a YAML file into a pydantic model.

    Parameters
    ----------
    path : str or Path
        The file.
    model : type of BaseModel
        What it must hold.
    fault : type of CropcubeError
        Class of the error to raise.

    Raises
    ------
    CropcubeError
        As `fault`, if the file is missing, too large, no YAML, or has an unknown key or a wrong
        value; the message names file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fault(f"{path}: not readable ({error})") from error
    if len(text) > MAX_BYTES:
        raise fault(f"{path}: larger than {MAX_BYTES} bytes; such a file is short")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: Lines = {}
        _walk(root, (), lines)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise fault(f"{path}: not YAML: {error}") from error
    except _RefusedError as error:
        raise fault(f"{path}{error}") from error
    if not isinstance(content, dict):
        raise fault(f"{path}: not a mapping of keys to values")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise fault(_explain(error, lines, path, model)) from error
    except CropcubeError as error:
        raise fault(f"{path}: {error}") from error


class _RefusedError(Exception):
    """Where and why; the caller knows the file."""


def _walk(node: yaml.Node | None, place: tuple[str | int, ...], lines: Lines) -> None:
    # Aliases are the same node again: walking them would let a few lines grow without bound.
    if len(lines) > MAX_NODES or len(place) > MAX_DEPTH:
        raise _RefusedError(f": more than {MAX_NODES} values (or aliases that multiply)")
    if node is None:
        return
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            if inner in lines:
                raise _RefusedError(f", line {key.start_mark.line + 1}: '{key.value}' again")
            lines[inner] = key.start_mark.line + 1
            _walk(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*place, index), lines)


def _explain(error: ValidationError, lines: Lines, path: Path, model: type[BaseModel]) -> str:
    kind, message, full = _cause(error)
    place = full
    while place and place not in lines:
        place = place[:-1]
    where = f"{path}, line {lines.get(place, 1)}"
    name = ".".join(str(part) for part in full)
    if kind != "extra_forbidden":
        return f"{where}: {name}: {message.removeprefix('Value error, ')}"
    known = _keys(model, full[:-1])
    near = difflib.get_close_matches(str(full[-1]), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"{where}: unknown key '{name}'; {hint}"


def _cause(error: ValidationError) -> tuple[str, str, tuple[str | int, ...]]:
    """Return kind, message and place of the mistake that explains the others."""
    # A misspelt key is the cause, the missing one only its consequence.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    # A part that raises an error of its own (Recipe) has the exact place one step further down.
    inner = getattr(first.get("ctx", {}).get("error"), "__cause__", None)
    if not isinstance(inner, ValidationError):
        return first["type"], first["msg"], first["loc"]
    kind, message, place = _cause(inner)
    return kind, message, (*first["loc"], *place)


def _keys(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    for part in place:
        field = model.model_fields.get(str(part))
        options = [field.annotation] if field else []
        options += list(getattr(field.annotation, "__args__", ())) if field else []
        nested = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)
