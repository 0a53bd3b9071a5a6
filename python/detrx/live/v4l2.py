"""USB cameras through Video4Linux itself: the newest frame, without the four buffers that OpenCV keeps.

``v4l2:///dev/video0?size=720x1280&fps=30&format=MJPG&memory=userptr``. With user pointers the driver writes into
memory of ours, which the GPU of a Jetson can be given to read from; with mmap into its own.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Dict, List, Optional
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from detrx.errors import SourceError
from detrx.images import opencv
from detrx.live.capture import Reader
from detrx.live.health import BadFrame, decode_jpeg

BUFFERS = 4
FORMATS = ("MJPG", "YUYV", "NV12")
MEMORY = {"mmap": 1, "userptr": 2}
KEYS = ("size", "fps", "format", "memory")

CAPTURE = 1
"""V4L2_BUF_TYPE_VIDEO_CAPTURE."""
ERROR_FLAG = 0x40
"""V4L2_BUF_FLAG_ERROR: the frame may be damaged."""
STREAMING = 0x04000000
"""V4L2_CAP_STREAMING."""


class Capability(ctypes.Structure):
    """struct v4l2_capability."""

    _fields_ = [
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("device_caps", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    ]


class PixelFormat(ctypes.Structure):
    """struct v4l2_format with its v4l2_pix_format; the union is aligned to a pointer and has 200 bytes."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("_align", ctypes.c_uint8 * (ctypes.sizeof(ctypes.c_void_p) - 4)),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("pixelformat", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("bytesperline", ctypes.c_uint32),
        ("sizeimage", ctypes.c_uint32),
        ("_rest", ctypes.c_uint8 * (200 - 24)),
    ]


class Request(ctypes.Structure):
    """struct v4l2_requestbuffers."""

    _fields_ = [
        ("count", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


class Place(ctypes.Union):
    """Where a buffer is: an offset for mmap, or an address of ours."""

    _fields_ = [("offset", ctypes.c_uint32), ("userptr", ctypes.c_ulong)]


class Buffer(ctypes.Structure):
    """struct v4l2_buffer."""

    _fields_ = [
        ("index", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("bytesused", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("timecode", ctypes.c_uint8 * 16),
        ("sequence", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("place", Place),
        ("length", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint32),
        ("request_fd", ctypes.c_int32),
    ]


class Rate(ctypes.Structure):
    """struct v4l2_streamparm with its v4l2_captureparm."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("capability", ctypes.c_uint32),
        ("capturemode", ctypes.c_uint32),
        ("numerator", ctypes.c_uint32),
        ("denominator", ctypes.c_uint32),
        ("_rest", ctypes.c_uint8 * (200 - 16)),
    ]


def _code(direction: int, number: int, kind: Any) -> int:
    """As the kernel's _IOR (2), _IOW (1) and _IOWR (3) make it."""
    return direction << 30 | ctypes.sizeof(kind) << 16 | ord("V") << 8 | number


QUERYCAP = _code(2, 0, Capability)
S_FMT = _code(3, 5, PixelFormat)
REQBUFS = _code(3, 8, Request)
QUERYBUF = _code(3, 9, Buffer)
QBUF = _code(3, 15, Buffer)
DQBUF = _code(3, 17, Buffer)
STREAMON = _code(1, 18, ctypes.c_int)
STREAMOFF = _code(1, 19, ctypes.c_int)
S_PARM = _code(3, 22, Rate)


class Device:
    """The system calls on one /dev/videoN, in one place so that a test can be the kernel."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def ioctl(self, code: int, argument: Any) -> None:
        fcntl.ioctl(self._file, code, argument)

    def map(self, length: int, offset: int) -> mmap.mmap:
        return mmap.mmap(self._file, length, mmap.MAP_SHARED, offset=offset)

    def wait(self, seconds: float) -> bool:
        """Whether a frame is there in time."""
        return bool(select.select([self._file], [], [], seconds)[0])

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class V4l2Options:
    """What a ``v4l2://`` URI says."""

    path: str
    height: int = 720
    width: int = 1280
    fps: float = 30.0
    format: str = "MJPG"
    memory: str = "mmap"


def parse_v4l2(uri: str) -> V4l2Options:
    """Read ``v4l2:///dev/video0?size=720x1280&fps=30&format=YUYV&memory=userptr``; ``v4l2://0`` is camera 0.

    Raises:
        SourceError: an unknown key or value.
    """
    parts = urlsplit(uri)
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        height, width = (int(side) for side in found.get("size", "720x1280").split("x"))
        path = parts.path or f"/dev/video{int(parts.netloc)}"
        fps, memory = float(found.get("fps", 30)), found.get("memory", "mmap").lower()
        options = V4l2Options(path, height, width, fps, found.get("format", "MJPG").upper(), memory)
    except ValueError:
        raise SourceError(
            f"[open_source] {uri!r}: size is HEIGHTxWIDTH, fps a number, the camera a number or path"
        ) from None
    known = options.format in FORMATS and options.memory in MEMORY and set(found) <= set(KEYS)
    if not known or not 0.1 <= fps <= 1000 or min(height, width) < 16 or max(height, width) > 16384:
        raise SourceError(
            f"[open_source] {uri!r}: format is one of {', '.join(FORMATS)}, memory mmap or userptr, "
            f"sides 16 to 16384, and {', '.join(KEYS)} are all that it takes"
        )
    return options


class V4l2Reader(Reader):
    """A camera's newest frame; what it sent before is given back to it unread."""

    def __init__(
        self, options: V4l2Options, *, name: str, timeout: float, device: Optional[Any] = None
    ) -> None:
        self._name, self._timeout, self._options = name, timeout, options
        self.stale = 0
        self._memory: List[mmap.mmap] = []
        try:
            self._device = Device(options.path) if device is None else device
        except OSError as error:
            raise SourceError(_cannot_open(error, options.path)) from None
        try:
            self._start()
        except OSError as error:
            self.close()
            raise SourceError(
                f"[open_source] {name} refuses {options.format}: {error}; {_advice(error)}"
            ) from None
        except SourceError:
            self.close()
            raise

    def read(self) -> Optional[NDArray[np.uint8]]:
        try:
            buffer = self._newest()
            try:
                return self._picture(buffer)
            finally:
                self._device.ioctl(QBUF, buffer)
        except OSError as error:
            raise SourceError(f"[open_source] {self._name} is lost: {error}; {_advice(error)}") from None

    def close(self) -> None:
        device = self._device
        with suppress(OSError):  # of a camera that was pulled out there is nothing to stop
            device.ioctl(STREAMOFF, ctypes.c_int(CAPTURE))
        device.close()
        self._memory.clear()

    def _start(self) -> None:
        told = Capability()
        self._device.ioctl(QUERYCAP, told)
        if not (told.device_caps or told.capabilities) & STREAMING:
            raise SourceError(f"[open_source] {self._name} does not stream; another of /dev/video* may")
        self._agree()
        self._give_buffers()
        self._device.ioctl(STREAMON, ctypes.c_int(CAPTURE))

    def _agree(self) -> None:
        """Ask for a size, format and rate; the driver answers with what it can."""
        wanted = self._options
        code = int.from_bytes(wanted.format.encode(), "little")
        shape = PixelFormat(type=CAPTURE, width=wanted.width, height=wanted.height, pixelformat=code)
        self._device.ioctl(S_FMT, shape)
        if shape.pixelformat != code:
            offered = int(shape.pixelformat).to_bytes(4, "little").decode("latin-1")
            raise SourceError(
                f"[open_source] {self._name} has no {wanted.format}, it offers {offered}; "
                f"`v4l2-ctl --list-formats-ext` lists all"
            )
        self._shape = shape
        rate = Rate(type=CAPTURE, numerator=1000, denominator=round(wanted.fps * 1000))
        try:
            self._device.ioctl(S_PARM, rate)
        # Some cameras have one rate and no such call.
        except OSError:
            self.fps = wanted.fps
        else:
            self.fps = rate.denominator / rate.numerator if rate.numerator else wanted.fps

    def _give_buffers(self) -> None:
        kind = MEMORY[self._options.memory]
        asked = Request(count=BUFFERS, type=CAPTURE, memory=kind)
        self._device.ioctl(REQBUFS, asked)
        for index in range(asked.count):
            buffer = Buffer(index=index, type=CAPTURE, memory=kind)
            if self._options.memory == "mmap":
                self._device.ioctl(QUERYBUF, buffer)
                self._memory.append(self._device.map(buffer.length, buffer.place.offset))
            else:
                self._memory.append(mmap.mmap(-1, int(self._shape.sizeimage)))
                buffer.place.userptr = ctypes.addressof(ctypes.c_char.from_buffer(self._memory[-1]))
                buffer.length = int(self._shape.sizeimage)
            self._device.ioctl(QBUF, buffer)

    def _newest(self) -> Buffer:
        """Wait for a frame, then take as many as are there."""
        if not self._device.wait(self._timeout):
            raise SourceError(f"[open_source] {self._name} gave no frame for {self._timeout:g} s")
        newest: Optional[Buffer] = None
        while True:
            buffer = Buffer(type=CAPTURE, memory=MEMORY[self._options.memory])
            try:
                self._device.ioctl(DQBUF, buffer)
            except BlockingIOError:
                if newest is None:
                    raise BadFrame("woken for nothing") from None
                return newest
            if newest is not None:
                self.stale += 1
                self._device.ioctl(QBUF, newest)
            newest = buffer

    def _picture(self, buffer: Buffer) -> NDArray[np.uint8]:
        if buffer.flags & ERROR_FLAG:
            raise BadFrame("the driver marked it damaged")
        data = memoryview(self._memory[buffer.index])[: buffer.bytesused]
        if self._options.format == "MJPG":
            return decode_jpeg(data)
        return _from_yuv(np.frombuffer(data, np.uint8), self._shape, self._options.format)


def _from_yuv(data: NDArray[np.uint8], shape: PixelFormat, kind: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of packed YUYV or two-plane NV12, rows as long as the driver says."""
    cv2 = opencv()
    height, width = int(shape.height), int(shape.width)
    across = width * (2 if kind == "YUYV" else 1)
    rows = height if kind == "YUYV" else height * 3 // 2
    pitch = max(int(shape.bytesperline), across)
    if len(data) < pitch * (rows - 1) + across:
        raise BadFrame("a frame that is too short")
    plane = np.lib.stride_tricks.as_strided(data, (rows, across), (pitch, 1))
    plane = np.ascontiguousarray(plane)
    if kind == "YUYV":
        rgb: NDArray[np.uint8] = cv2.cvtColor(plane.reshape(height, width, 2), cv2.COLOR_YUV2RGB_YUYV)
    else:
        rgb = cv2.cvtColor(plane, cv2.COLOR_YUV2RGB_NV12)
    return rgb


_ADVICE: Dict[int, str] = {
    errno.EBUSY: "who else holds it: `fuser -v /dev/video*`",
    errno.EACCES: "`sudo usermod -aG video $USER`, then log in again",
    errno.ENODEV: "it was unplugged",
    errno.ENOENT: "`ls /dev/video*` lists what is here",
    errno.EINVAL: "`v4l2-ctl --list-formats-ext` lists what it can; memory=mmap works with all",
}


def _advice(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, "check the cable")


def _cannot_open(error: OSError, path: str) -> str:
    return f"[open_source] {path} does not open: {error.strerror}; {_advice(error)}"
