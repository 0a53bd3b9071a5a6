"""Fixtures of the tests of the web page."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def page() -> Iterator[Any]:
    web = runpy.run_path(str(Path(__file__).with_name("web_clients.py")))
    with web["a_page"]() as served:
        yield served


@pytest.fixture
def fed(page: Any) -> Any:
    """A page that was told of one frame."""
    web = runpy.run_path(str(Path(__file__).with_name("web_clients.py")))
    page.take(web["a_frame"](0), web["some"](), web["TIMES"])
    return page
