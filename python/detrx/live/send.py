"""Pictures over the network as H.264, through the GStreamer of this machine's OpenCV."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Optional, Tuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ConfigError, MissingBackendError, SourceError
from detrx.images import opencv
from detrx.live.frames import FALLBACK_FPS, redact
from detrx.live.sink import Shown, Sink

ENCODERS = {
    "software": "videoconvert ! video/x-raw,format=I420 ! "
    "x264enc tune=zerolatency speed-preset=veryfast bitrate={kbit} key-int-max={keys}",
    "jetson": "videoconvert ! video/x-raw,format=BGRx ! nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! "
    "nvv4l2h264enc bitrate={bit} maxperf-enable=1 insert-sps-pps=1 iframeinterval={keys}",
}
# What GStreamer's own syntax would read as an element, a property or a quote.
SAFE = re.compile(r"[\w.:/@%+~=&?,\[\]-]+", re.ASCII)


def sending_pipeline(uri: str, *, fps: float, kbit: int = 4000, encoder: Optional[str] = None) -> str:
    """The GStreamer pipeline that takes BGR pictures and sends them.

    Args:
        uri: udp://HOST:PORT (MPEG-TS, which VLC and ffplay open as ``udp://@:PORT``), or rtsp://SERVER/PATH of a server
            that takes recordings, as mediamtx does.
        fps: frames a second; a key frame comes every two seconds.
        kbit: thousand bits a second.
        encoder: "software" or "jetson"; None takes what this machine has.

    Raises:
        ConfigError: not such an address.
    """
    name = encoder or ("jetson" if Path("/etc/nv_tegra_release").exists() else "software")
    packed = ENCODERS[name].format(kbit=kbit, bit=kbit * 1000, keys=max(1, round(2 * fps)))
    return f"appsrc ! queue leaky=downstream max-size-buffers=2 ! {packed} ! h264parse ! {_target(uri)}"


def _target(uri: str) -> str:
    where = urlsplit(uri)
    scheme, port = where.scheme.lower(), _port(uri)
    if SAFE.fullmatch(uri) and where.hostname and scheme == "udp" and port:
        return f"mpegtsmux alignment=7 ! udpsink host={where.hostname} port={port} sync=false"
    if SAFE.fullmatch(uri) and where.hostname and scheme in ("rtsp", "rtsps") and len(where.path) > 1:
        return f'rtspclientsink location="{uri}" protocols=tcp'
    raise ConfigError(f"[send] it takes udp://HOST:PORT or rtsp://SERVER/PATH, got {redact(uri)!r}")


def _port(uri: str) -> Optional[int]:
    try:
        return urlsplit(uri).port
    except ValueError:
        return None


class SendSink(Sink):
    """Sends each picture on.

    Raises:
        ConfigError: not an address to send to.
        MissingBackendError: this OpenCV has no GStreamer.
    """

    wants_picture = True

    def __init__(self, uri: str, *, fps: Optional[float]) -> None:
        self.name = redact(uri)
        self._fps = fps or FALLBACK_FPS
        self._pipeline = sending_pipeline(uri, fps=self._fps)
        self._size: Tuple[int, int] = (0, 0)
        self._writer: Any = None
        if not has_gstreamer():
            raise MissingBackendError(
                "GStreamer in OpenCV (cv2)",
                "No wheel of OpenCV has it; type: sudo apt-get install python3-opencv, outside a virtual environment "
                "or in one made with --system-site-packages. Without it, --web shows the pictures in a browser.",
            )

    def write(self, shown: Shown) -> None:
        cv2, picture = opencv(), shown.picture
        if self._writer is None:
            self._open(cv2, picture)
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()

    def _open(self, cv2: Any, picture: NDArray[np.uint8]) -> None:
        self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
        writer = cv2.VideoWriter(self._pipeline, cv2.CAP_GSTREAMER, 0, self._fps, self._size)
        if not writer.isOpened():
            raise SourceError(
                f"[send] {self.name} cannot be sent to; is a server there, and has GStreamer its parts? Try: "
                f"`gst-inspect-1.0 x264enc rtspclientsink` (gstreamer1.0-plugins-ugly, gstreamer1.0-rtsp)"
            )
        self._writer = writer


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with it."""
    if not sys.platform.startswith(("linux", "win", "darwin")):
        return False
    lines = (line.strip() for line in opencv().getBuildInformation().splitlines())
    return any(line.startswith("GStreamer:") and "YES" in line for line in lines)
