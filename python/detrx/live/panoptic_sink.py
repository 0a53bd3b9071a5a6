"""Divided pictures on disk, in COCO's panoptic format: a PNG each, and one JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence, Set, Union

from detrx.images import IMAGE_SUFFIXES
from detrx.live.sink import Shown, Sink, write_json, write_picture
from detrx.types import ModelInfo, Panoptic


class PanopticFiles:
    """Writes PNGs as they come, into a folder of the JSON's name beside it as COCO has it, and the JSON at the end."""

    def __init__(
        self, path: Path, *, names: Sequence[str], category_ids: Sequence[int], things: Sequence[bool]
    ) -> None:
        """
        Args:
            path: the JSON.
            names: of all classes, with ``category_ids`` and ``things`` of each.
        """
        self.path, self.folder = path, path.with_suffix("")
        self._categories = [
            {"id": int(number), "name": name, "isthing": int(thing)}
            for number, name, thing in zip(category_ids, names, things)
        ]
        self._stems: Set[str] = set()
        self._images: List[Dict[str, Any]] = []
        self._annotations: List[Dict[str, Any]] = []
        self._closed = False

    def add(self, found: Panoptic, *, image_id: Union[int, str], file_name: str, stem: str) -> None:
        """Take a picture ``file_name``; its segments go to a PNG called ``stem``, or much like it if there is one.

        Raises:
            SourceError: it cannot be written.
        """
        png = f"{stem}.png" if stem not in self._stems else f"{stem}_{len(self._images):06d}.png"
        self._stems.add(stem)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_picture(self.folder / png, found.to_rgb())
        height, width = found.segments_map.shape
        self._images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        self._annotations.append(found.to_coco(image_id=image_id, file_name=png))

    def close(self) -> None:
        """Write the JSON. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        content = {"images": self._images, "annotations": self._annotations, "categories": self._categories}
        write_json(self.path, content)


class PanopticSink(Sink):
    """What a panoptic model says of each frame."""

    def __init__(self, path: Path, info: ModelInfo) -> None:
        self._files = PanopticFiles(
            path, names=info.names, category_ids=info.category_ids, things=info.things
        )
        self._count = 0

    def write(self, shown: Shown) -> None:
        if shown.panoptic is None:
            return
        self._count += 1
        name, index = shown.frame.name, shown.frame.index
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and Path(name).is_file():
            stem = Path(name).stem
        else:
            name, stem = f"{name}#{index}", f"frame_{index:06d}"
        self._files.add(shown.panoptic, image_id=self._count, file_name=name, stem=stem)

    def close(self) -> None:
        self._files.close()
