"""`detrx webcam` for minutes or a day, beside a camera that drops out and viewers that are slow: nothing may grow.

    python scripts/soak.py [--minutes 10] [--clients 5] [--json FILE]

The camera is motion JPEG over HTTP that every few seconds closes, stalls or sends rubbish; the viewers read the page's
stream a little at a time, and leave and come back. Resident memory, open files and threads of the process are read from
/proc each second; a line is fitted to the later half. Exits with 1 where something grew, or where it did not come back.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detrx.data.synthetic import Scenes

LIFE = (2.0, 6.0)
"""Seconds that a connection to the camera lasts, at random."""
MOST_GROWTH = {"rss_mb": 4.0, "files": 2.0, "threads": 2.0}
"""What the fitted line may rise over the later half. Buffers of libraries breathe; a leak does not stop."""


class Camera(BaseHTTPRequestHandler):
    """Frames at 20 a second until it closes, stalls, or sends rubbish first."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        end = time.monotonic() + random.uniform(*LIFE)
        scenes = Scenes(size=(240, 320), seed=random.randrange(10**6))
        try:
            for step in range(10**6):
                if time.monotonic() > end:
                    break
                picture = cv2.imencode(".jpg", scenes.frame(step)[0][..., ::-1])[1].tobytes()
                picture = picture[: len(picture) // 2] if random.random() < 0.02 else picture
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                time.sleep(0.05)
            if random.random() < 0.3:
                time.sleep(6)  # longer than the timeout below
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


def watch_slowly(port: int, stop: threading.Event) -> None:
    """A viewer on a bad line."""
    while not stop.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as line:
                line.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                for _ in range(random.randrange(5, 100)):
                    if stop.is_set() or not line.recv(2048):
                        break
                    time.sleep(0.1)
        except OSError:
            time.sleep(0.5)


def look(pid: int) -> dict[str, float]:
    """What a process holds at present; nothing of one that has ended."""
    place = Path(f"/proc/{pid}")
    status = dict(
        line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line
    )
    if "VmRSS" not in status:
        return {}
    return {
        "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
        "anonymous_mb": int(status["RssAnon"].split()[0]) / 1024,
        "files": len(list((place / "fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def growth(seen: list[dict[str, float]], key: str) -> float:
    """What a line through the later half rises over it."""
    values = np.array([row[key] for row in seen[len(seen) // 2 :]])
    slope = np.polyfit(np.arange(len(values)), values, 1)[0] if len(values) > 1 else 0.0
    return float(slope * (len(values) - 1))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def soak(*, minutes: float, clients: int, model: str) -> dict[str, Any]:
    camera = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    camera.daemon_threads = True
    threading.Thread(target=camera.serve_forever, daemon=True).start()
    port, stop = free_port(), threading.Event()
    command = [sys.executable, "-m", "detrx", "webcam", f"http://127.0.0.1:{camera.server_port}/cam"]
    command += ["--model", model, "--timeout", "4", "--threads", "1", "--web", f"127.0.0.1:{port}"]
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT)
        for _ in range(clients):
            threading.Thread(target=watch_slowly, args=(port, stop), daemon=True).start()
        seen: list[dict[str, float]] = []
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end and process.poll() is None:
            time.sleep(1)
            found = look(process.pid)
            seen += [found] if found else []
        early = process.poll()
        if early is None:
            process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        code = process.wait(timeout=20)
        stop.set()
        camera.shutdown()
        told.seek(0)
        lines = told.read().splitlines()
    return {
        "minutes": minutes,
        "ended_early": early,
        "exit_code": code,
        "seconds_to_stop": round(time.monotonic() - stopped, 2),
        "losses": sum("lost" in line for line in lines),
        "last": seen[-1] if seen else {},
        "growth": {key: round(growth(seen, key), 3) for key in MOST_GROWTH},
        "said_last": lines[-5:],
        "seen": seen,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--json", type=Path, help="write what was seen to this file")
    args = parser.parse_args()
    found = soak(minutes=args.minutes, clients=args.clients, model=args.model)
    print(json.dumps({key: value for key, value in found.items() if key != "seen"}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    grew = [key for key, most in MOST_GROWTH.items() if found["growth"][key] > most]
    return 1 if grew or found["ended_early"] is not None or not found["losses"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
