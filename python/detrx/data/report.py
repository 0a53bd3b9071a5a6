"""What a reader skipped and what it found odd, counted by reason with the first examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Tuple

EXAMPLES = 20
"""Examples kept of each reason."""


@dataclass(frozen=True)
class ReadReport:
    """What became of the entries of one annotation file."""

    counts: Dict[str, int] = field(default_factory=dict)
    """Skipped entries by reason; image reasons start with "image: ", box reasons with "box: "."""
    examples: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    """The first 20 of each reason."""
    warnings: Tuple[str, ...] = ()
    """What was filled in, clipped or looks odd; nothing was lost by it."""

    @property
    def skipped(self) -> int:
        return sum(self.counts.values())

    def lines(self) -> List[str]:
        """For people: one line a reason with its first examples, then the warnings."""
        skipped = [
            f"skipped {count} x {reason} (first: {', '.join(self.examples[reason][:3])})"
            for reason, count in self.counts.items()
        ]
        return skipped + [f"warning: {text}" for text in self.warnings]


class Tally:
    """Counts while a file is read; report() freezes it."""

    def __init__(self) -> None:
        self.counts: Dict[str, int] = {}
        self.examples: Dict[str, List[str]] = {}
        self.warnings: Dict[str, int] = {}
        self.first: Dict[str, str] = {}

    def skip(self, reason: str, example: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES:
            kept.append(example)

    def warn(self, text: str, example: str = "") -> None:
        self.warnings[text] = self.warnings.get(text, 0) + 1
        self.first.setdefault(text, example)

    def bad(self, start: str) -> int:
        """Entries skipped for the reasons that start so."""
        return sum(count for reason, count in self.counts.items() if reason.startswith(start))

    def report(self) -> ReadReport:
        warnings = tuple(
            f"{text} ({count} x, first: {self.first[text]})" if self.first[text] else text
            for text, count in self.warnings.items()
        )
        return ReadReport(dict(self.counts), {k: tuple(v) for k, v in self.examples.items()}, warnings)
