"""The data that flow through the runtime half: numpy only, checked at the door."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx import panoptic_ids, rle
from detrx.errors import CheckpointError, MissingBackendError
from detrx.resample import positive

PADDING = -1024.0
"""The normalised value of canvas pixels without picture, for models that look away from them. No picture has it:
normalised pixels are within about 3, and every float type holds it exactly."""


def _check_shape(where: str, name: str, array: Any, shape: Tuple[Optional[int], ...]) -> None:
    found = getattr(array, "shape", None)
    fits = found is not None and len(found) == len(shape)
    if not fits or any(want is not None and want != have for want, have in zip(shape, found or ())):
        wanted = "(" + ", ".join("_" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"[{where}] {name} must have shape {wanted}, got {found}")


@dataclass(frozen=True)
class Frame:
    """One picture from a source."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB, 0 to 255."""
    index: int
    """Counts the frames that the source produced, from 0; a gap means dropped frames."""
    seconds: float
    """Capture time since the source was opened (a file: its position), in seconds."""
    name: str = ""
    """What the source calls it: a path, or the URI without its password."""

    def __post_init__(self) -> None:
        _check_shape("Frame", "image", self.image, (None, None, 3))


@dataclass(frozen=True)
class Letterbox:
    """How an image was laid on the canvas, and the way back."""

    scale: Tuple[float, float]
    """Canvas pixels to one image pixel, (vertical, horizontal): equal but for rounding to whole pixels."""
    pad: Tuple[int, int]
    """Empty canvas pixels (above, left of) the image."""
    canvas: Tuple[int, int]
    """(height, width) of the canvas in pixels."""
    image: Tuple[int, int]
    """(height, width) of the image in pixels."""

    def undo(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take (N, 4) corners in [0, 1] of the canvas to pixels of the image, clipped to it."""
        height, width = self.canvas
        top, left = self.pad
        down, across = self.scale
        out = np.empty_like(boxes, dtype=np.float32)
        out[..., 0::2] = ((boxes[..., 0::2] * width - left) / across).clip(0, self.image[1])
        out[..., 1::2] = ((boxes[..., 1::2] * height - top) / down).clip(0, self.image[0])
        return out

    def undo_masks(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Take (N, h', w') logits that cover the canvas to (N, H, W) masks of the image: bilinear, above 0."""
        height, width = self.image
        out = np.empty((len(logits), height, width), bool)
        for mask, field in zip(out, logits):
            mask[...] = self.undo_mask(field)
        return out

    def undo_mask(self, field: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The same for one (h', w')."""
        places = []
        for axis in (0, 1):
            cells = field.shape[axis] / self.canvas[axis]
            places.append(((np.arange(self.image[axis]) + 0.5) * self.scale[axis] + self.pad[axis]) * cells)
        return positive(field, rows=places[0], columns=places[1])

    def apply(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take (N, 4) corners in pixels of the image to [0, 1] of the canvas."""
        height, width = self.canvas
        top, left = self.pad
        down, across = self.scale
        out = np.empty_like(boxes, dtype=np.float32)
        out[..., 0::2] = (boxes[..., 0::2] * across + left) / width
        out[..., 1::2] = (boxes[..., 1::2] * down + top) / height
        return out


@dataclass(frozen=True)
class Raw:
    """What every backend answers: the best K of each image, best first."""

    scores: NDArray[np.float32]
    """(B, K) in [0, 1], falling."""
    labels: NDArray[np.int64]
    """(B, K) index into the model's class names."""
    boxes: NDArray[np.float32]
    """(B, K, 4) corners x0, y0, x1, y1 in [0, 1] of the canvas."""
    masks: Optional[NDArray[np.float32]] = None
    """(B, K, h', w') logits that cover the canvas, or None for a model without masks."""
    queries: Optional[NDArray[np.int64]] = None
    """(B, K) the query of each answer, where masks are merged in their order (DETR's panoptic models); or None."""

    def __post_init__(self) -> None:
        _check_shape("Raw", "scores", self.scores, (None, None))
        b, k = self.scores.shape
        _check_shape("Raw", "labels", self.labels, (b, k))
        _check_shape("Raw", "boxes", self.boxes, (b, k, 4))
        if self.masks is not None:
            _check_shape("Raw", "masks", self.masks, (b, k, None, None))
        if self.queries is not None:
            _check_shape("Raw", "queries", self.queries, (b, k))


_RARE = ("marked", "sides", "things", "masks")


@dataclass(frozen=True)
class ModelInfo:
    """What an artefact (checkpoint, ONNX file, engine) says of the model inside it."""

    model: str
    """The name in the zoo, as "rt-n"."""
    names: Tuple[str, ...]
    """Class names; a label is an index into them."""
    category_ids: Tuple[int, ...]
    """The id of each class in the data set that the model was trained on."""
    canvas: Tuple[int, int]
    """(height, width) of the input in pixels, multiples of 32."""
    mean: Tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per channel RGB, in [0, 1]; pixels are (image / 255 - mean) / std."""
    std: Tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per channel RGB, in (0, 1]."""
    licence: str = "unknown"
    """Licence and provenance of the weights, as far as known."""
    marked: bool = False
    """The picture lies at the top left of the canvas and the rest is PADDING; False: centred on grey."""
    sides: Tuple[int, ...] = ()
    """(shortest, longest) side in pixels that a picture is scaled to where the backend takes any size, with no canvas
    around a single picture, as DETR was trained; empty: always on the canvas."""
    things: Tuple[bool, ...] = ()
    """Whether each class is a thing (countable) or stuff (sky, grass), for panoptic models; empty for all others."""
    masks: bool = False
    """It answers with a mask of each object (instances)."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.category_ids):
            raise ValueError(
                f"[ModelInfo] names and category_ids must be equally long, "
                f"got {len(self.names)} and {len(self.category_ids)}"
            )
        if len(self.canvas) != 2 or any(side < 32 or side % 32 for side in self.canvas):
            raise ValueError(f"[ModelInfo] canvas sides must be multiples of 32, got {self.canvas}")
        if self.sides and (len(self.sides) != 2 or not 1 <= self.sides[0] <= self.sides[1]):
            raise ValueError(f"[ModelInfo] sides must be (shortest, longest) in pixels, got {self.sides}")
        if self.things and len(self.things) != len(self.names):
            raise ValueError(
                f"[ModelInfo] things must have one answer for each of {len(self.names)} names, got {len(self.things)}"
            )

    def to_json(self) -> str:
        found = asdict(self)
        # What most models do not have is left out, so that an older detrx reads their files.
        return json.dumps({key: value for key, value in found.items() if key not in _RARE or value})

    @staticmethod
    def from_json(text: str) -> ModelInfo:
        """Read what to_json wrote.

        Raises:
            CheckpointError: not JSON, a key is missing, or a value does not fit.
        """
        try:
            found: Dict[str, Any] = json.loads(text)
            values: Dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
            return ModelInfo(**values)
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"[ModelInfo] not a description of a detrx model: {error}") from error


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first."""

    boxes: NDArray[np.float32]
    """(N, 4) corners x0, y0, x1, y1 in pixels of the image as it was given."""
    scores: NDArray[np.float32]
    """(N,) in [0, 1], falling."""
    labels: NDArray[np.int64]
    """(N,) index into class_names."""
    class_names: Tuple[str, ...] = ()
    """The names of all classes of the model."""
    category_ids: Tuple[int, ...] = ()
    """The data set's own id of each class."""
    masks: Optional[NDArray[np.bool_]] = None
    """(N, H, W) in pixels of the image, or None for a model without masks."""
    tracks: Optional[NDArray[np.int64]] = None
    """(N,) the number, from 1, that an object keeps from frame to frame, -1 where it has none yet."""

    def __post_init__(self) -> None:
        n = len(self.scores)
        _check_shape("Detections", "scores", self.scores, (n,))
        _check_shape("Detections", "boxes", self.boxes, (n, 4))
        _check_shape("Detections", "labels", self.labels, (n,))
        if self.masks is not None:
            _check_shape("Detections", "masks", self.masks, (n, None, None))
        if self.tracks is not None:
            _check_shape("Detections", "tracks", self.tracks, (n,))

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Tuple[NDArray[np.float32], float, int]]:
        """Box, score, label of each object."""
        for box, score, label in zip(self.boxes, self.scores, self.labels):
            yield box, float(score), int(label)

    def __getitem__(self, keep: Any) -> Detections:
        """The objects at an index array, boolean mask or slice."""
        return Detections(
            self.boxes[keep],
            self.scores[keep],
            self.labels[keep],
            self.class_names,
            self.category_ids,
            None if self.masks is None else self.masks[keep],
            None if self.tracks is None else self.tracks[keep],
        )

    @property
    def names(self) -> NDArray[np.str_]:
        """(N,) the class name of each object."""
        table = np.array(self.class_names or [""], dtype=np.str_)
        return (
            table[self.labels] if self.class_names else np.array([str(i) for i in self.labels], dtype=np.str_)
        )

    def above(self, score: float) -> Detections:
        return self[self.scores >= score]

    def to_coco(self, *, image_id: Union[int, str] = 0) -> List[Dict[str, Any]]:
        """One COCO result each: bbox is x, y, width, height in pixels, category_id the data set's own, segmentation,
        where there are masks, their run lengths."""
        ids = self.category_ids or tuple(range(int(self.labels.max(initial=-1)) + 1))
        masks = (
            [{}] * len(self) if self.masks is None else [{"segmentation": rle.encode(m)} for m in self.masks]
        )
        return [
            {
                "image_id": image_id,
                "category_id": int(ids[label]),
                "bbox": [round(float(v), 3) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": round(score, 6),
                **mask,
            }
            for (box, score, label), mask in zip(self, masks)
        ]

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``, with the class names in ``data["class_name"]``.

        Raises:
            MissingBackendError: supervision is not installed.
        """
        try:
            supervision = importlib.import_module("supervision")
        except ImportError as error:
            raise MissingBackendError("supervision", "Install it with `pip install supervision`.") from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            mask=self.masks,
            tracker_id=self.tracks,
            data={"class_name": self.names},
        )


@dataclass(frozen=True)
class Segment:
    """One thing, or all of one kind of stuff, of a picture that is divided among segments."""

    id: int
    """From 1 on; what its pixels have in the map."""
    label: int
    """Index into the model's class names."""
    category_id: int
    """The data set's own id of the class."""
    thing: bool
    """Countable, as a car; False: stuff, as the sky."""
    area: int
    """In pixels."""
    score: float
    """In [0, 1]."""


@dataclass(frozen=True)
class Panoptic:
    """A picture divided among segments: each pixel is of one, or of none."""

    segments_map: NDArray[np.int32]
    """(H, W) the segment's id of each pixel of the image as it was given, 0 for none."""
    segments: Tuple[Segment, ...]
    """In the order of their ids."""
    class_names: Tuple[str, ...] = ()
    """The names of all classes of the model."""

    def __post_init__(self) -> None:
        _check_shape("Panoptic", "segments_map", self.segments_map, (None, None))

    def __len__(self) -> int:
        return len(self.segments)

    def mask(self, segment: Segment) -> NDArray[np.bool_]:
        """(H, W), where the segment is."""
        found: NDArray[np.bool_] = self.segments_map == segment.id
        return found

    def name(self, segment: Segment) -> str:
        """The class name of a segment."""
        return self.class_names[segment.label] if self.class_names else str(segment.label)

    def to_rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: the picture that COCO's panoptic format keeps the ids in."""
        return panoptic_ids.to_rgb(self.segments_map)

    def to_coco(self, *, image_id: Union[int, str] = 0, file_name: str = "") -> Dict[str, Any]:
        """The annotation of COCO's panoptic format that belongs to the PNG ``file_name``."""
        return {
            "image_id": image_id,
            "file_name": file_name,
            "segments_info": [
                {
                    "id": one.id,
                    "category_id": one.category_id,
                    "isthing": int(one.thing),
                    "iscrowd": 0,
                    "area": one.area,
                    "bbox": _bbox(self.mask(one)),
                    "score": round(one.score, 6),
                }
                for one in self.segments
            ],
        }


def _bbox(mask: NDArray[np.bool_]) -> List[int]:
    """x, y, width, height in pixels."""
    x0, y0, x1, y1 = rle.bounds(mask)
    return [x0, y0, x1 - x0, y1 - y0]
