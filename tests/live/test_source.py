"""open_source: every kind of source, and clear words where there is none."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from detrx.errors import DataError, SourceError
from detrx.live.frames import redact, sane_fps
from detrx.live.scenes import Film, parse_scene
from detrx.live.source import open_source

cv2 = pytest.importorskip("cv2")


def write_pictures(folder: Path, *names: str) -> None:
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((20, 30, 3), value * 10, np.uint8))


def test_a_folder_is_read_in_order_and_below(tmp_path: Path) -> None:
    write_pictures(tmp_path, "b.png", "a.png", "sub/c.png")
    (tmp_path / "notes.txt").write_text("no picture")
    frames = list(open_source(tmp_path))
    assert [Path(frame.name).relative_to(tmp_path).as_posix() for frame in frames] == [
        "a.png",
        "b.png",
        "sub/c.png",
    ]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].image.tolist() == np.full((20, 30, 3), 10).tolist()


def test_a_glob_and_a_file_and_odd_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a b.png", "ü\n.png", "c.jpg")
    assert len(list(open_source(f"{tmp_path}/*.png"))) == 2
    assert len(list(open_source(tmp_path / "a b.png"))) == 1
    assert len(list(open_source(f"file://{tmp_path}/c.jpg"))) == 1


def test_a_bad_picture_is_skipped_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    source = open_source(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(list(source)) == 1
    assert source.skipped == 1
    assert "b.png" in caplog.text
    with pytest.raises(DataError):
        list(open_source(tmp_path / "b.png"))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match="none of the 2 pictures"):
        list(open_source(tmp_path))


def test_what_is_no_file_is_skipped_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path, "a.png", "folder.png/b.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    source = open_source(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(list(source)) == 2
    assert source.skipped == 3
    assert caplog.text.count("not a regular file") == 2
    with pytest.raises(DataError, match="not a regular file"):
        list(open_source(tmp_path / "pipe.png"))


def test_a_video_gives_every_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=12)
    source = open_source(path)
    assert (source.fps, source.live, source.length) == (25, False, 12)
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert frames[5].seconds == pytest.approx(0.2)
    red, green, blue = frames[0].image[20, 20].astype(int)
    assert red > 200 > 100 > max(green, blue)
    source.close()
    source.close()


def write_video(path: Path, *, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(frames):
        writer.write(np.full((48, 64, 3), (20, 20, 230), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("content", [b"", b"not a video at all", b"\0" * 5000])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"v\.mp4"):
        list(open_source(tmp_path / "v.mp4"))


def test_test_shapes_is_the_same_every_time() -> None:
    uri = "test://shapes?size=64x96&frames=5&seed=3&cut=2"
    source = open_source(uri)
    frames = list(source)
    assert (source.length, source.live, source.fps) == (5, False, 30)
    assert frames[0].image.shape == (64, 96, 3)
    film = Film(parse_scene(uri))
    for frame in frames:
        np.testing.assert_array_equal(frame.image, film.frame(frame.index)[0])
    assert not np.array_equal(frames[1].image, frames[2].image)
    assert len(film.names) >= 6


def test_a_live_source_keeps_the_newest_frame() -> None:
    with open_source("test://shapes?size=48x64&frames=40&fps=100&live=1") as source:
        assert source.live
        indices = []
        for frame in source:
            indices.append(frame.index)
            time.sleep(0.04)
    assert indices == sorted(set(indices))
    assert indices[-1] == 39
    assert len(indices) + source.dropped == 40
    assert source.dropped > 5


def test_a_live_source_closes_while_frames_come() -> None:
    source = open_source("test://shapes?size=48x64&frames=0&fps=200&live=1")
    next(iter(source))
    start = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nothing/here.jpg", "nothing at"),
        ("", "nothing at"),
        ("nothing/*.png", "nothing at"),
        ("test://cars", "one scene"),
        ("test://shapes?colour=red", "colour"),
        ("test://shapes?size=big", "HEIGHTxWIDTH"),
        ("test://shapes?size=1x1", "32 to 8192"),
        ("test://shapes?fps=0", "fps"),
        ("test://shapes?fps=nan", "fps"),
        ("test://shapes?frames=-1", "from 0"),
        ("csi://x", "csi"),
        ("csi://0?size=1x1", "sides"),
        ("csi://0?colour=red", "takes"),
        ("gst://", "empty pipeline"),
        ("v4l2://977", "does not open"),
        ("v4l2://0?format=H264", "MJPG"),
        ("v4l2://0?size=big", "HEIGHTxWIDTH"),
        ("ftp://host/a", "knows no"),
        ("/dev/videoX", "number"),
        ("/dev/video977", "does not exist"),
        ("977", "does not exist"),
    ],
)
def test_unknown_places_are_refused(uri: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_source(uri)


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"\.jpg"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="timeout"):
        open_source(tmp_path, timeout=0)


def test_a_silent_server_ends_in_time_and_keeps_the_password_secret() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(SourceError) as caught:
            open_source(f"rtsp://me:geheim@127.0.0.1:{port}/stream", timeout=0.6)
        assert time.monotonic() - start < 4
    assert "geheim" not in str(caught.value)
    assert "me:***@" in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://u:p@host/a", "rtsp://u:***@host/a"),
        ("rtsp://u:p@q:r@host/a", "rtsp://u:***@host/a"),
        ("http://host/a?token=abc&x=1", "http://host/a?token=***&x=1"),
        ("rtsp://host:554/a", "rtsp://host:554/a"),
        ("photos/a@b:c.jpg", "photos/a@b:c.jpg"),
    ],
)
def test_redact(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@pytest.mark.parametrize(
    ("found", "fps"), [(0, 30), (float("nan"), 30), (90_000, 30), (-5, 30), (29.97, 29.97)]
)
def test_sane_fps(found: float, fps: float) -> None:
    assert sane_fps(found) == fps
