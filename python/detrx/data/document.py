"""JSON from strangers: size, encoding, nesting and duplicate keys are checked, errors say where."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

from detrx.errors import DataError

MAX_BYTES = 2 << 30
"""Larger files are refused. Parsed COCO JSON takes about 8 times its size in memory."""

# A string, with the colon behind it where it is a key, or the bracket of an object.
_KEY_OR_BRACKET = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}]', re.DOTALL)
_BOMS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class _DuplicateKeyError(ValueError):
    pass


def load_document(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: unreadable, too large, not UTF-8, cut off or malformed (with the byte), nested too deeply,
            or an object names a key twice (with the byte of the second).
    """
    data = _read(path, max_bytes)
    for mark, encoding in _BOMS.items():
        if data.startswith(mark):
            found = f"byte 0 starts a {encoding} byte order mark"
            raise _refuse(path, found, "Save it as plain UTF-8 without a byte order mark.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refuse(path, f"byte {error.start} is not UTF-8", "Save it as UTF-8.") from error
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        byte = len(text[: error.pos].encode("utf-8"))
        kind = "the file is cut off" if byte >= len(data.rstrip()) - 1 else "malformed JSON"
        raise _refuse(path, f"{kind} at byte {byte} of {len(data)}: {error.msg}") from error
    except _DuplicateKeyError as error:
        raise _refuse(path, _second_key(text) or str(error), "Keep one of the two.") from error
    except RecursionError as error:
        byte = _deepest(data)
        raise _refuse(path, f"it is nested too deeply (deepest at byte {byte})") from error
    except ValueError as error:
        raise _refuse(path, f"a value cannot be read: {error}") from error


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        if not path.is_file():
            raise _refuse(path, "there is no such file" if not path.exists() else "it is not a regular file")
        size = path.stat().st_size
        if size > max_bytes:
            raise _refuse(path, f"it has {size} bytes, more than {max_bytes}", "Split it, or strip polygons.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _refuse(path, f"it cannot be read ({error})", "Check the path and its permissions.") from error


def _refuse(path: Path, found: str, remedy: str = "Write the file again from its source.") -> DataError:
    return DataError(f"[load_document] {os.fspath(path)!r} must be readable JSON, but {found}. {remedy}")


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(f"an object names the key {key!r} twice")
            seen.add(key)
    return found


def _second_key(text: str) -> Optional[str]:
    """What is wrong, with the byte of the first key that its object has named before; the parser tells no places."""
    objects: List[Set[str]] = []
    for found in _KEY_OR_BRACKET.finditer(text):
        string, colon = found.groups()
        if string is None:
            if found.group() == "{":
                objects.append(set())
            elif objects:
                objects.pop()
        elif colon and objects:
            key = json.loads(string) if "\\" in string else string[1:-1]
            if key in objects[-1]:
                byte = len(text[: found.start()].encode("utf-8"))
                return f"an object names the key {key!r} twice, again at byte {byte}"
            objects[-1].add(key)
    return None


def _deepest(data: bytes) -> int:
    """The byte of the deepest bracket, counting those in strings too: good enough to find the place."""
    depth = deepest = where = 0
    for at, byte in enumerate(data[: 1 << 22]):
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > deepest:
            deepest, where = depth, at
    return where
