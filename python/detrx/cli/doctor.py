"""``detrx doctor``: what to paste into an issue."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import List, Sequence

import tyro

from detrx.doctor import Finding, examine

MARKS = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}


@dataclass(frozen=True)
class DoctorConfig:
    """Say what this machine has for detrx and what is missing. Paste the answer into an issue."""

    json: bool = False
    """As JSON."""


def run(args: Sequence[str]) -> int:
    config = tyro.cli(DoctorConfig, args=args, prog="detrx doctor")
    findings = examine()
    if config.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return 0
    show(findings)
    return 0


def show(findings: List[Finding]) -> None:
    """A line each, what to type under what is missing, and the way to an issue."""
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{MARKS[finding.state]}  {finding.what:<{width}}  {finding.found}")
        if finding.remedy:
            print(f"{'':{width + 11}}type: {finding.remedy}")
    missing = [finding.what for finding in findings if finding.state == "missing"]
    print()
    print(f"Missing: {', '.join(missing)}." if missing else "Nothing is missing. See it work: `detrx demo`")
    print("In an issue, paste this, the command that failed, what it printed, and what you expected.")
