"""Boxes from supervision, and the trackers of others as a step of the loop."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, Dict, Tuple

import numpy as np

from detrx.types import Detections, Frame


def from_supervision(found: Any, *, class_names: Tuple[str, ...] = ()) -> Detections:
    """What ``Detections.to_supervision`` turns round: detections of ``supervision.Detections``, best first.

    Args:
        found: without scores they are 1, without classes 0; without tracker ids there are no tracks.
        class_names: of all classes; else those that ``data["class_name"]`` tells.
    """
    boxes = np.asarray(found.xyxy, np.float32).reshape(-1, 4)
    scores = np.ones(len(boxes)) if found.confidence is None else found.confidence
    labels = np.zeros(len(boxes)) if found.class_id is None else found.class_id
    order = np.argsort(-np.asarray(scores), kind="stable")
    result = Detections(
        boxes,
        np.asarray(scores, np.float32),
        np.asarray(labels, np.int64),
        class_names or _names(found, labels),
        masks=None if found.mask is None else np.asarray(found.mask, np.bool_),
        tracks=None if found.tracker_id is None else np.asarray(found.tracker_id, np.int64),
    )
    return result[order]


def _names(found: Any, labels: Any) -> Tuple[str, ...]:
    told = found.data.get("class_name")
    if told is None or not len(told):
        return ()
    known = dict(zip(np.asarray(labels).astype(int).tolist(), np.asarray(told).tolist()))
    return tuple(str(known.get(label, label)) for label in range(max(known) + 1))


class PeerTracker:
    """A tracker of ``trackers``, or supervision's ByteTrack, in the place of ``detrx.live.track.Tracker``.

    Numbers are its own and one more, since ours begin at 1. A tracker that takes time stamps gets those of the source.

    Args:
        tracker: has ``update`` or ``update_with_detections``, which take and give ``supervision.Detections``.
        pictures: give it the frame's picture too, for trackers that watch how the camera moves.

    Raises:
        TypeError: it has neither.
    """

    def __init__(self, tracker: Any, *, pictures: bool = False) -> None:
        update = getattr(tracker, "update", None) or getattr(tracker, "update_with_detections", None)
        if update is None:
            raise TypeError(
                f"[PeerTracker] a tracker must have update or update_with_detections, got {type(tracker).__name__}"
            )
        self._update, self._takes = update, set(inspect.signature(update).parameters)
        self._pictures = pictures

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        """As a step of the loop.

        Raises:
            MissingBackendError: supervision is not installed.
        """
        given: Dict[str, Any] = {"timestamp": frame.seconds} if "timestamp" in self._takes else {}
        if self._pictures:
            given["frame"] = frame.image
        said = from_supervision(self._update(found.to_supervision(), **given), class_names=found.class_names)
        tracks = np.full(len(said), -1, np.int64) if said.tracks is None else said.tracks
        return replace(
            said, category_ids=found.category_ids, tracks=np.where(tracks >= 0, tracks + 1, np.int64(-1))
        )
