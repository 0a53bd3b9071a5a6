"""Pictures sent on through GStreamer: the pipeline's text, and what is said where there is no GStreamer."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from detrx.errors import ConfigError, MissingBackendError
from detrx.live import send
from detrx.live.send import SendSink, sending_pipeline

pytest.importorskip("cv2")


def test_the_pipeline_for_udp() -> None:
    text = sending_pipeline("udp://239.0.0.1:5000", fps=25, kbit=2000, encoder="software")
    assert text.startswith("appsrc ! queue leaky=downstream ")
    assert "x264enc tune=zerolatency speed-preset=veryfast bitrate=2000 key-int-max=50 ! h264parse" in text
    assert text.endswith("mpegtsmux alignment=7 ! udpsink host=239.0.0.1 port=5000 sync=false")


def test_the_pipeline_for_rtsp_on_a_jetson() -> None:
    text = sending_pipeline("rtsp://user:word@server:8554/live", fps=30, encoder="jetson")
    assert "nvvidconv" in text
    assert "nvv4l2h264enc bitrate=4000000" in text
    assert text.endswith('rtspclientsink location="rtsp://user:word@server:8554/live" protocols=tcp')


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/x",
        "udp://host",
        "udp://:5000",
        "udp://host:99999",
        "rtsp://host",
        "rtsp://host/",
        'rtsp://host/a" ! filesink location="/tmp/x',
        "udp://host:5000 ! filesink",
        "",
    ],
)
def test_what_is_no_address_to_send_to(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"\[send\]"):
        sending_pipeline(uri, fps=30)


def test_a_password_is_not_told() -> None:
    with pytest.raises(ConfigError) as caught:
        sending_pipeline("ftp://me:geheim@host/x", fps=30)
    assert "geheim" not in str(caught.value)


def test_without_gstreamer_the_message_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "has_gstreamer", lambda: False)
    with pytest.raises(MissingBackendError, match=r"apt-get install python3-opencv.*--web"):
        SendSink("udp://localhost:5000", fps=30)


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="no gst-launch-1.0 here")
def test_gstreamer_reads_the_pipeline() -> None:
    """With a test picture in appsrc's place, and an encoder that is there or is said to be missing."""
    text = sending_pipeline("udp://127.0.0.1:5000", fps=30, encoder="software")
    text = text.replace("appsrc", "videotestsrc num-buffers=3 ! video/x-raw,format=BGR,width=64,height=48")
    done = subprocess.run(["gst-launch-1.0", *text.split()], capture_output=True, text=True, timeout=60)
    if "no element" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
