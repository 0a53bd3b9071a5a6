"""Options that tyro does not know: a source anywhere, --web with and without its address."""

from __future__ import annotations

import pytest

from detrx.cli.options import web_alone

DEFAULT = "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["0"], ["0"]),
        (["0", "--web"], ["0", "--web", DEFAULT]),
        (["--web", "0"], ["--web", DEFAULT, "0"]),
        (["--web", ":9000", "0"], ["--web", ":9000", "0"]),
        (["--web", "0.0.0.0:80"], ["--web", "0.0.0.0:80"]),
        (["--web", "[::1]:80"], ["--web", "[::1]:80"]),
        (["--web", "rtsp://host:554/x"], ["--web", DEFAULT, "rtsp://host:554/x"]),
        (["--web", "--threshold", "0.2"], ["--web", DEFAULT, "--threshold", "0.2"]),
        (["--web=9000"], ["--web=9000"]),
        ([], []),
    ],
)
def test_web_may_stand_alone(given: list[str], wanted: list[str]) -> None:
    assert web_alone(given, default=DEFAULT) == wanted
