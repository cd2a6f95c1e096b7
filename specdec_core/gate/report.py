"""The gate's report: one Check for each property compared, with its text and JSON forms.

Plain data; knows nothing of configurations or tokenizers.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Status = Literal["pass", "warning", "fail", "unchecked"]
"""Result of a check. "unchecked": a value could not be read or compared."""

SHARE_A_TOKENIZER = (
    "Choose a drafter that shares the target's tokenizer, usually a smaller size of the same release, "
    "or no drafter at all (n-gram drafting)."
)

_LINE_WIDTH = 100
_INDENT = " " * 13


@dataclass(frozen=True, slots=True)
class Check:
    """The result for one property, with both values. On fail the explanation ends with a next step."""

    name: str
    status: Status
    target_value: str
    drafter_value: str
    explanation: str


@dataclass(frozen=True, slots=True)
class PairReport:
    """The gate's verdict on a pair, or on a target alone if `drafter` is None; `str(report)` is fit for a
    terminal.

    `tokenizer` is the target's, the only one used for text; loading takes it from here rather than parse it
    again. `tokenizer_width` is its highest id + 1, the width that `vocab_padding="trim"` cuts logits to.
    """

    target: str
    drafter: str | None
    checks: tuple[Check, ...]
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False, compare=False)
    tokenizer_width: int | None = None

    @property
    def ok(self) -> bool:
        """True if the pair may be loaded: no check failed, none was left unchecked."""
        return all(check.status in ("pass", "warning") for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as values for JSON, without the tokenizer."""
        return {
            "ok": self.ok,
            "target": self.target,
            "drafter": self.drafter,
            "tokenizer_width": self.tokenizer_width,
            "checks": [asdict(check) for check in self.checks],
        }

    def __str__(self) -> str:
        both = "target" if self.drafter is None else "both"
        return "\n".join([self._verdict(), *(_lines(check, both) for check in self.checks)])

    def _verdict(self) -> str:
        failed = [check.name for check in self.checks if check.status == "fail"]
        unchecked = [check.name for check in self.checks if check.status == "unchecked"]
        total = len(self.checks)
        if failed:
            count = f"{len(failed)} of {total} checks failed" if total > 1 else "the check failed"
            if self.drafter is None:
                return f"Unsupported: {self.target} cannot be loaded; {count}: {', '.join(failed)}."
            return (
                f"Incompatible: {self.drafter} cannot draft for {self.target}; {count}: {', '.join(failed)}."
            )
        if unchecked:
            subject = f"{self.drafter} drafting for {self.target}" if self.drafter else self.target
            return f"Not checked: {subject}; unread: {', '.join(unchecked)}."
        warnings = sum(check.status == "warning" for check in self.checks)
        note = f", {warnings} of them with a warning" if warnings else ""
        subject = f"Compatible: {self.drafter} can draft for" if self.drafter else "Supported:"
        return f"{subject} {self.target}; {total} checks passed{note}."


def _lines(check: Check, both: str) -> str:
    label = check.status.upper() if check.status in ("fail", "unchecked") else check.status
    if check.target_value == check.drafter_value:
        values = [(both, check.target_value)]
    else:
        values = [("target", check.target_value), ("drafter", check.drafter_value)]
    lines = [f"  {label:<9}  {check.name}"]
    for role, value in values:
        lines.append(
            textwrap.fill(
                value,
                _LINE_WIDTH,
                initial_indent=f"{_INDENT}{role:<7}  ",
                subsequent_indent=f"{_INDENT}{'':<7}  ",
                break_on_hyphens=False,
            )
        )
    lines.append(
        textwrap.fill(check.explanation, _LINE_WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    )
    return "\n".join(lines)
