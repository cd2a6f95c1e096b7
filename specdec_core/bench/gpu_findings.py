"""Findings of the GPU checks: one result each, as a line for people and as a line of JSON.

Imports nothing heavy, since the process that starts the steps needs it too.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..strict_json import to_json

Status = Literal["pass", "fail", "skipped", "measured"]
"""`pass` and `fail` are results of checks; what is `measured` has no right value."""
_STATUSES = get_args(Status)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one check or measurement: its status, a description for people, and JSON values."""

    status: Status
    description: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """A named outcome of a step."""

    step: str
    name: str
    status: Status
    description: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The finding in one line for people."""
        return f"{self.status:<8}  {self.step}: {self.name}: {' '.join(self.description.split())}"


def verdict(passed: bool, description: str, figures: Mapping[str, Any] | None = None) -> Outcome:
    """Return the outcome of a check that passes or fails."""
    return Outcome("pass" if passed else "fail", description, figures or {})


def finding_json(finding: Finding) -> str:
    """Return the finding as one line of JSON. Raises TypeError for figures that JSON does not have."""
    return to_json(dataclasses.asdict(finding))


def parse_finding(line: str) -> Finding:
    """Return the finding that `finding_json` wrote. Raises ValueError for any other line."""
    values = json.loads(line)
    try:
        finding = Finding(**values)
    except TypeError as error:
        raise ValueError(f"no finding: {line[:200]}") from error
    texts = (finding.step, finding.name, finding.description)
    if finding.status not in _STATUSES or not isinstance(finding.figures, dict):
        raise ValueError(f"no finding: {line[:200]}")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"no finding: {line[:200]}")
    return finding


def counts_line(findings: Iterable[Finding]) -> str:
    """Return the counts by status, in the order of Status: "12 pass, 1 fail, 40 measured"."""
    counts = Counter(finding.status for finding in findings)
    return ", ".join(f"{counts[status]} {status}" for status in _STATUSES if counts[status]) or "nothing ran"
