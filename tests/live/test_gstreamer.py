"""Pipelines: their text, and where gst-launch-1.0 is, their pictures."""

from __future__ import annotations

import shutil
import subprocess
import threading
from functools import lru_cache

import pytest

from detrx.errors import MissingBackendError, SourceError
from detrx.live import gstreamer
from detrx.live.gstreamer import LAUNCH, csi_pipeline, is_pipeline, open_gstreamer, pipeline_of
from detrx.live.source import open_source

pytest.importorskip("cv2")


@lru_cache(maxsize=1)
def why_not() -> str:
    if shutil.which(LAUNCH) is None or shutil.which("gst-inspect-1.0") is None:
        return f"{LAUNCH} is not installed"
    for element in ("videotestsrc", "y4menc"):
        if subprocess.run(["gst-inspect-1.0", element], capture_output=True, check=False).returncode:
            return f"GStreamer has no {element}"
    return ""


@pytest.fixture
def gst() -> None:
    if why_not():
        pytest.skip(why_not())


def test_the_text_for_a_ribbon_camera() -> None:
    text = csi_pipeline("csi://1?size=1080x1920&fps=60&flip=2")
    assert text.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080")
    assert "framerate=60/1" in text
    assert "flip-method=2" in text


def test_a_pipeline_is_told_from_a_file() -> None:
    assert is_pipeline("gst://videotestsrc")
    assert is_pipeline("v4l2src ! videoconvert")
    assert not is_pipeline("photos/wow!.jpg")
    for text in ("gst://videotestsrc", "gst://videotestsrc ! appsink drop=1", "videotestsrc ! appsink"):
        assert pipeline_of(text) == "videotestsrc"


def test_without_gstreamer_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "_opencv_has_it", lambda: False)
    monkeypatch.setattr(gstreamer.shutil, "which", lambda name: None)
    with pytest.raises(MissingBackendError, match="apt install"):
        open_gstreamer("videotestsrc", name="x")


def test_frames_of_a_pipeline(gst: None) -> None:
    uri = "gst://videotestsrc pattern=snow is-live=true ! video/x-raw,width=96,height=64,framerate=20/1"
    with open_source(uri, timeout=20) as source:
        frames = [frame for frame, _ in zip(source, range(3))]
    assert frames[0].image.shape == (64, 96, 3)
    assert source.fps == 20
    assert source.live
    assert not [thread for thread in threading.enumerate() if thread.name == "detrx-capture"]


def test_colours_survive(gst: None) -> None:
    uri = "gst://videotestsrc pattern=red is-live=true ! video/x-raw,width=96,height=64"
    with open_source(uri, timeout=20) as source:
        red, green, blue = next(iter(source)).image[32, 48].astype(int)
    assert red > 220
    assert max(green, blue) < 30


def test_a_pipeline_that_does_not_start_says_why(gst: None) -> None:
    with pytest.raises(SourceError, match="does not start"):
        open_source("gst://nosuchelement", timeout=20)
    with pytest.raises(SourceError, match="cannot be read"):
        open_source('gst://videotestsrc pattern="', timeout=20)
