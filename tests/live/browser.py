"""A headless Chromium through chromedriver, spoken to over WebDriver with the standard library alone."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROME = next((found for found in map(shutil.which, NAMES) if found), None)
DRIVER = shutil.which("chromedriver")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
]


class Browser:
    """One window; a context manager that ends the browser and its driver."""

    def __init__(self, folder: Path, *, width: int = 1280, height: int = 900) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._driver = subprocess.Popen(
            [str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._root = f"http://127.0.0.1:{port}"
        self._wait_for_driver()
        options = {
            "binary": CHROME,
            "args": [*ARGUMENTS, f"--window-size={width},{height}", f"--user-data-dir={folder}"],
        }
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        wanted = {"capabilities": {"alwaysMatch": always}}
        self._session = f"/session/{self._call('/session', wanted)['sessionId']}"

    def open(self, url: str) -> None:
        self._call(f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self._call(f"{self._session}/execute/sync", {"script": f"return {script}", "args": []})

    def wait(self, script: str, *, seconds: float = 40.0) -> Any:
        """The value of an expression once it is true."""
        until = time.monotonic() + seconds
        while True:
            value = self.run(script)
            if value or time.monotonic() > until:
                assert value, f"{script} did not become true in {seconds:g} s"
                return value
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call(f"{self._session}/screenshot")))

    def emulate(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's DevTools."""
        return self._call(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self) -> list[str]:
        """What the page complained about since the last call."""
        found = self._call(f"{self._session}/se/log", {"type": "browser"})
        return [str(entry["message"]) for entry in found if entry["level"] == "SEVERE"]

    def close(self) -> None:
        try:
            self._call(self._session, method="DELETE")
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=10)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_for_driver(self) -> None:
        for _ in range(200):
            try:
                self._call("/status")
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("chromedriver does not answer")

    def _call(self, path: str, content: Any = None, *, method: str | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:500]) from None
