"""GStreamer pipelines: a Jetson's CSI cameras, and whatever GStreamer can open.

OpenCV's own GStreamer door is taken where this OpenCV has one (the system's on a Jetson). Those from PyPI have none;
then ``gst-launch-1.0`` runs the pipeline and sends the pictures through a pipe.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import Any, List, Optional
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from detrx.errors import MissingBackendError, SourceError
from detrx.images import opencv
from detrx.live.capture import Reader
from detrx.live.frames import redact, sane_fps

LAUNCH = "gst-launch-1.0"
CSI_KEYS = ("size", "fps", "flip")
# One buffer, the newest, and no waiting for its time: a queue would only make the frame older.
NEWEST = "appsink drop=true max-buffers=1 sync=false"
_SINK = re.compile(r"!\s*appsink\b[^!]*$")


def csi_pipeline(uri: str) -> str:
    """GStreamer text for ``csi://0?size=720x1280&fps=30&flip=0``, a camera on a Jetson's ribbon cable.

    Raises:
        SourceError: no number, an unknown key, or a value out of range.
    """
    parts = urlsplit(uri)
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(found) - set(CSI_KEYS))
    if unknown or not parts.netloc.isdigit():
        raise SourceError(f"[open_source] csi:// takes a number and {', '.join(CSI_KEYS)}, got {uri!r}")
    try:
        height, width = (int(side) for side in found.get("size", "720x1280").split("x"))
        fps, flip = int(found.get("fps", 30)), int(found.get("flip", 0))
    except ValueError:
        raise SourceError(
            f"[open_source] {uri!r}: size is HEIGHTxWIDTH, fps and flip are whole numbers"
        ) from None
    if min(height, width) < 32 or max(height, width) > 8192 or not 1 <= fps <= 240 or not 0 <= flip <= 7:
        raise SourceError(
            f"[open_source] {uri!r}: sides 32 to 8192, fps 1 to 240 and flip 0 to 7 are allowed"
        )
    return (
        f"nvarguscamerasrc sensor-id={parts.netloc} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1,format=NV12 ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,format=BGRx"
    )


def is_pipeline(text: str) -> bool:
    return text.startswith("gst://") or " ! " in text


def pipeline_of(text: str) -> str:
    """The pipeline without its scheme and without a sink of its own."""
    body = text[len("gst://") :] if text.startswith("gst://") else text
    body = _SINK.sub("", body).strip().rstrip("!").strip()
    if not body:
        raise SourceError("[open_source] an empty pipeline; try `gst://videotestsrc`")
    return body


def open_gstreamer(pipeline: str, *, name: str) -> Reader:
    """The way that this machine has.

    Raises:
        SourceError: it does not start.
        MissingBackendError: neither an OpenCV with GStreamer nor gst-launch-1.0 is here.
    """
    if _opencv_has_it():
        return OpenCvReader(f"{pipeline} ! videoconvert ! video/x-raw,format=BGR ! {NEWEST}", name=name)
    if shutil.which(LAUNCH):
        return LaunchReader(pipeline, name=name)
    raise MissingBackendError(
        "GStreamer",
        "Type: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good, or use the system's python3-opencv.",
    )


def _opencv_has_it() -> bool:
    lines = opencv().getBuildInformation().splitlines()
    return any("GStreamer:" in line and "YES" in line for line in lines)


class OpenCvReader(Reader):
    """A pipeline that ends in an appsink with BGR."""

    def __init__(self, text: str, *, name: str) -> None:
        cv2 = opencv()
        self._cv2, self._name = cv2, name
        self._capture: Any = cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            raise SourceError(
                f"[open_source] {name} does not start; `{LAUNCH} {redact(text)}` says why "
                "(on a Jetson `sudo systemctl restart nvargus-daemon` frees a camera that hangs)"
            )
        self.fps = sane_fps(self._capture.get(cv2.CAP_PROP_FPS))

    def read(self) -> Optional[NDArray[np.uint8]]:
        arrived, image = self._capture.read()
        if not arrived:
            raise SourceError(f"[open_source] {self._name} stopped sending")
        rgb: NDArray[np.uint8] = self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB)
        return rgb

    def close(self) -> None:
        self._capture.release()


class LaunchReader(Reader):
    """A pipeline in a process of its own, which sends YUV4MPEG2 and can be killed when it hangs."""

    def __init__(self, pipeline: str, *, name: str) -> None:
        # A queue that leaks the oldest: what the reader is too slow for is lost there and not kept.
        text = (
            f"{pipeline} ! queue leaky=downstream max-size-buffers=1 ! videoconvert ! "
            "video/x-raw,format=I420 ! y4menc ! fdsink fd=1 sync=false"
        )
        self._cv2, self._name = opencv(), name
        self._process = subprocess.Popen(
            [LAUNCH, "-q", *_words(text)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._pipe: Any = self._process.stdout
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def read(self) -> Optional[NDArray[np.uint8]]:
        if not self._pipe.readline(256).startswith(b"FRAME"):
            raise SourceError(f"[open_source] {self._name} ended: {self._why()}")
        data = self._pipe.read(self._size)
        if len(data) < self._size:
            raise SourceError(f"[open_source] {self._name} ended in the middle of a frame: {self._why()}")
        planes = np.frombuffer(data, np.uint8).reshape(self._height * 3 // 2, self._width)
        rgb: NDArray[np.uint8] = self._cv2.cvtColor(planes, self._cv2.COLOR_YUV2RGB_I420)
        return rgb

    def stop(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read_header(self) -> None:
        """``YUV4MPEG2 W640 H480 I? A1:1 F30:1 C420``."""
        line = self._pipe.readline(512).decode("latin-1")
        if not line.startswith("YUV4MPEG2"):
            raise SourceError(f"[open_source] {self._name} does not start: {self._why()}")
        said = {word[0]: word[1:] for word in line.split()[1:]}
        self._width, self._height = int(said["W"]), int(said["H"])
        if self._width % 2 or self._height % 2:
            raise SourceError(
                f"[open_source] {self._name} is {self._height} x {self._width}; add `! videoscale ! "
                "video/x-raw,width=...,height=...` with even sides"
            )
        self._size = self._width * self._height * 3 // 2
        over, _, under = said.get("F", "0:1").partition(":")
        self.fps = sane_fps(int(over) / max(1, int(under or 1)))

    def _why(self) -> str:
        """What it says of itself; waits for its end, so that all has been said."""
        self._process.kill()
        _, told = self._process.communicate()
        lines = [line for line in told.decode("utf-8", "replace").splitlines() if "ERROR" in line]
        return redact(lines[0]) if lines else "no reason given"


def _words(text: str) -> List[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SourceError(f"[open_source] the pipeline cannot be read: {error}") from None
