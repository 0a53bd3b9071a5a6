"""V4L2 against a kernel that is made up here: no camera is needed, and none was used."""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
from collections import deque
from typing import Any

import numpy as np
import pytest

from detrx.errors import SourceError

if not sys.platform.startswith("linux"):
    pytest.skip("V4L2 is Linux's", allow_module_level=True)
cv2 = pytest.importorskip("cv2")

from detrx.live import v4l2  # noqa: E402
from detrx.live.health import BadFrame  # noqa: E402
from detrx.live.v4l2 import V4l2Options, V4l2Reader, parse_v4l2  # noqa: E402


class Kernel:
    """A camera of so many bytes a row that hands out the frames it was given, oldest first."""

    def __init__(self, *, pitch: int = 0, offers: str | None = None, caps: int = v4l2.STREAMING) -> None:
        self.pitch, self.offers, self.caps = pitch, offers, caps
        self.frames: deque[tuple[bytes, int]] = deque()
        self.free: deque[int] = deque()
        self.memory: dict[int, Any] = {}
        self.errors: dict[int, int] = {}
        self.streaming = self.closed = False
        self.size = 0

    def ioctl(self, code: int, argument: Any) -> None:
        if code in self.errors:
            raise OSError(self.errors[code], "made up")
        names = (
            "QUERYCAP",
            "S_FMT",
            "REQBUFS",
            "QUERYBUF",
            "QBUF",
            "DQBUF",
            "STREAMON",
            "STREAMOFF",
            "S_PARM",
        )
        name = next(name for name in names if getattr(v4l2, name) == code)
        getattr(self, name.lower())(argument)

    def querycap(self, told: Any) -> None:
        told.device_caps = self.caps

    def s_fmt(self, shape: Any) -> None:
        if self.offers:
            shape.pixelformat = int.from_bytes(self.offers.encode(), "little")
        shape.bytesperline = self.pitch
        shape.sizeimage = self.size = (self.pitch or shape.width * 2) * shape.height * 2

    def s_parm(self, rate: Any) -> None:
        rate.numerator, rate.denominator = 1, 25

    def reqbufs(self, asked: Any) -> None:
        self.kind = asked.memory
        asked.count = 3

    def querybuf(self, buffer: Any) -> None:
        buffer.length, buffer.place.offset = self.size, buffer.index * 4096

    def map(self, length: int, offset: int) -> mmap.mmap:
        found = mmap.mmap(-1, length)
        self.memory[offset // 4096] = found
        return found

    def qbuf(self, buffer: Any) -> None:
        if self.kind == v4l2.MEMORY["userptr"]:
            self.memory.setdefault(buffer.index, int(buffer.place.userptr))
        self.free.append(buffer.index)

    def dqbuf(self, buffer: Any) -> None:
        if not self.frames or not self.free:
            raise BlockingIOError(errno.EAGAIN, "none")
        content, flags = self.frames.popleft()
        index = self.free.popleft()
        place = self.memory[index]
        if isinstance(place, int):
            ctypes.memmove(place, content, len(content))
            buffer.place.userptr = place
        else:
            place[: len(content)] = content
        buffer.index, buffer.bytesused, buffer.flags = index, len(content), flags

    def streamon(self, _: Any) -> None:
        self.streaming = True

    def streamoff(self, _: Any) -> None:
        self.streaming = False

    def wait(self, seconds: float) -> bool:
        return bool(self.frames)

    def close(self) -> None:
        self.closed = True


def opened(kernel: Kernel, **options: Any) -> V4l2Reader:
    found = V4l2Options("/dev/videoX", **{"height": 16, "width": 32, "format": "YUYV", **options})
    return V4l2Reader(found, name="cam", timeout=0.1, device=kernel)


def test_the_structures_are_as_large_as_the_kernels() -> None:
    sizes = [ctypes.sizeof(kind) for kind in (v4l2.Capability, v4l2.Request, v4l2.Rate)]
    assert sizes == [104, 20, 204]
    if ctypes.sizeof(ctypes.c_void_p) == 8:
        assert [ctypes.sizeof(kind) for kind in (v4l2.PixelFormat, v4l2.Buffer)] == [208, 88]
        # As videodev2.h's macros make them on 64 bits.
        assert (v4l2.QUERYCAP, v4l2.S_FMT, v4l2.DQBUF) == (0x80685600, 0xC0D05605, 0xC0585611)


@pytest.mark.parametrize("memory", ["mmap", "userptr"])
@pytest.mark.parametrize("pitch", [0, 80])
def test_yuyv_with_any_pitch(memory: str, pitch: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (16, 64), dtype=np.uint8)
    sent = np.zeros((16, pitch or 64), np.uint8)
    sent[:, :64] = rows
    kernel = Kernel(pitch=pitch)
    reader = opened(kernel, memory=memory)
    kernel.frames.append((sent.tobytes(), 0))
    expected = cv2.cvtColor(rows.reshape(16, 32, 2), cv2.COLOR_YUV2RGB_YUYV)
    np.testing.assert_array_equal(reader.read(), expected)
    assert reader.fps == 25
    reader.close()
    assert kernel.closed
    assert not kernel.streaming


def test_nv12_and_mjpg() -> None:
    plane = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    kernel = Kernel()
    reader = opened(kernel, format="NV12")
    kernel.frames.append((plane.tobytes(), 0))
    np.testing.assert_array_equal(reader.read(), cv2.cvtColor(plane, cv2.COLOR_YUV2RGB_NV12))
    picture = cv2.imencode(".jpg", np.full((16, 32, 3), (10, 20, 200), np.uint8))[1].tobytes()
    kernel = Kernel()
    reader = opened(kernel, format="MJPG")
    kernel.frames += [(picture + b"\0" * 64, 0), (picture[:-30], 0)]
    kernel.frames.rotate(1)
    red, green, blue = np.asarray(reader.read())[8, 8].astype(int)
    assert (red > 190, green < 30, blue < 20) == (True, True, True)


def test_the_newest_frame_is_taken_and_all_buffers_go_back() -> None:
    kernel = Kernel()
    reader = opened(kernel)
    for value in (10, 20, 200):
        kernel.frames.append((np.full((16, 64), value, np.uint8).tobytes(), 0))
    newest = reader.read()
    assert newest is not None
    expected = cv2.cvtColor(np.full((16, 32, 2), 200, np.uint8), cv2.COLOR_YUV2RGB_YUYV)
    np.testing.assert_array_equal(newest, expected)
    assert reader.stale == 2
    assert sorted(kernel.free) == [0, 1, 2]


def test_damaged_frames() -> None:
    kernel = Kernel()
    reader = opened(kernel)
    for content, flags in ((b"\0" * 1024, v4l2.ERROR_FLAG), (b"\0" * 100, 0)):
        kernel.frames.append((content, flags))
        with pytest.raises(BadFrame):
            reader.read()
        assert sorted(kernel.free) == [0, 1, 2]


@pytest.mark.parametrize(
    ("code", "number", "says"),
    [
        (v4l2.S_FMT, errno.EBUSY, "fuser"),
        (v4l2.STREAMON, errno.EINVAL, "v4l2-ctl"),
        (v4l2.REQBUFS, errno.EIO, "cable"),
    ],
)
def test_refusals_say_what_to_do(code: int, number: int, says: str) -> None:
    kernel = Kernel()
    kernel.errors[code] = number
    with pytest.raises(SourceError, match=says):
        opened(kernel)
    assert kernel.closed


def test_an_unplugged_camera_is_a_loss() -> None:
    kernel = Kernel()
    reader = opened(kernel)
    kernel.frames.append((b"\0" * 1024, 0))
    kernel.errors[v4l2.DQBUF] = kernel.errors[v4l2.STREAMOFF] = errno.ENODEV
    with pytest.raises(SourceError, match="unplugged"):
        reader.read()
    reader.close()
    assert kernel.closed


def test_silence_and_other_formats() -> None:
    with pytest.raises(SourceError, match="no frame"):
        opened(Kernel()).read()
    with pytest.raises(SourceError, match="it offers H264"):
        opened(Kernel(offers="H264"))
    with pytest.raises(SourceError, match="does not stream"):
        opened(Kernel(caps=1))


def test_the_uri() -> None:
    found = parse_v4l2("v4l2:///dev/video2?size=480x640&fps=15&format=yuyv&memory=userptr")
    assert found == V4l2Options("/dev/video2", 480, 640, 15, "YUYV", "userptr")
    assert parse_v4l2("v4l2://3").path == "/dev/video3"
