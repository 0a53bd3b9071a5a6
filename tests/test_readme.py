"""The documents name commands, options and files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


def shell_lines(text: str) -> list[str]:
    """The lines of the blocks that are for a shell, comments taken off."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shell = [body.replace("\\\n", " ") for language, body in blocks if language in {"", "bash", "sh"}]
    return [line.split("  #")[0].strip() for body in shell for line in body.splitlines()]


COMMANDS = sorted(
    {
        line
        for path in DOCUMENTS
        for line in shell_lines(path.read_text(encoding="utf-8"))
        if line.startswith("detrx ")
    }
)


@lru_cache(maxsize=None)
def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "detrx", *command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_exist(line: str) -> None:
    words = line.split()[1:]
    command = words[:2] if words[0] == "data" else words[:1]
    offered = set(re.findall(r"--[a-z0-9.-]+", help_of(*command)))
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= offered


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench", "gpu", "xavier"])
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
