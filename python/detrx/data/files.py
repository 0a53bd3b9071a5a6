"""From a file name in an annotation file to a picture below the image folder, and never elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple

from detrx.data.report import EXAMPLES, Tally
from detrx.errors import DataError
from detrx.images import image_size

_DRIVE_OR_URL = re.compile(r"^[A-Za-z]:[\\/]|^[A-Za-z][A-Za-z0-9+.-]*://")
MAX_TURNED = 0.01
"""Largest share of images whose file is turned against the JSON's width and height."""


def check_name(name: str, *, where: str) -> None:
    """Refuse a file name that could leave the image folder; nothing is opened.

    Raises:
        DataError: absolute, a drive, a URL, with "..", or with a NUL byte.
    """
    steps = re.split(r"[\\/]", name)
    if name.startswith(("/", "\\")) or "\0" in name or ".." in steps or _DRIVE_OR_URL.match(name):
        raise _escape(where, name)


def _escape(where: str, name: str) -> DataError:
    return DataError(
        f"[read_coco] {where}: file_name must be a path inside the image folder, found {name!r}. "
        "The path escapes its root: write it relative to the folder, and copy files in place of linking out of it."
    )


class FileFinder:
    """Looks up pictures with one directory listing a folder; symbolic links may not lead out of the root."""

    def __init__(self, root: Path, *, where: str, headers: bool) -> None:
        """headers: also open each file's header and let its size win over the JSON's.

        The root itself may be a link: the user chose it, the annotation file did not.
        """
        self.root = root
        self.where = where
        self.headers = headers
        self._real = os.path.realpath(root)
        self._folders: Dict[str, Dict[str, bool]] = {}
        self._turned: List[str] = []

    def find(self, name: str, size: Tuple[int, int], tally: Tally) -> Optional[Tuple[Path, Tuple[int, int]]]:
        """The path and (height, width) of a picture; None, and counted, where it cannot be used.

        Raises:
            DataError: a link leads out of the root.
        """
        folder, base = os.path.split(name)
        entries = self._list(folder, name)
        if base not in entries:
            tally.skip("image: file is missing", name)
            return None
        path = self.root / name
        if entries[base]:
            self._check_inside(os.path.realpath(path), name)
        if not self.headers:
            return path, size
        try:
            found = image_size(path)
        except DataError as error:
            tally.skip("image: file is broken", str(error))
            return None
        self._compare(name, size, found, tally)
        return path, found

    def check_turned(self, images: int) -> None:
        """Raises:
        DataError: too many files have the width and height of the JSON exchanged.
        """
        if len(self._turned) > MAX_TURNED * images:
            raise DataError(
                f"[read_coco] {self.where}: width and height must be those of the picture as it is shown (EXIF "
                f"applied), {len(self._turned)} of {images} files have them exchanged: "
                f"{', '.join(self._turned[:EXAMPLES])}. Their boxes would be wrong: export the labels again from "
                "the turned pictures, or remove the EXIF orientation from the files."
            )

    def _list(self, folder: str, name: str) -> Dict[str, bool]:
        """Names in a folder and whether each is a symbolic link; empty where there is no such folder."""
        if folder not in self._folders:
            path = Path(self._real) / folder
            try:
                self._check_inside(os.path.realpath(path), name)
                with os.scandir(path) as entries:
                    self._folders[folder] = {e.name: e.is_symlink() for e in entries}
            except OSError:
                self._folders[folder] = {}
        return self._folders[folder]

    def _check_inside(self, real: str, name: str) -> None:
        if real != self._real and not real.startswith(self._real.rstrip(os.sep) + os.sep):
            raise _escape(self.where, name)

    def _compare(self, name: str, size: Tuple[int, int], found: Tuple[int, int], tally: Tally) -> None:
        if not all(size):
            tally.warn("width or height is missing: taken from the file", name)
        elif size != found:
            tally.warn("width and height differ from the file: the file's are taken", name)
            if size == found[::-1]:
                self._turned.append(name)


def listing(folder: Path) -> Set[str]:
    """Names in a folder; empty where there is none."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208 (a set of names, not of paths)
    except OSError:
        return set()
