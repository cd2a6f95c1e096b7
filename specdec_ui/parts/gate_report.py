"""The gate's report as HTML: its summary, and a table of checks with both values and the verdict.

Escapes every value; knows nothing of components.
"""

from __future__ import annotations

from html import escape

import specdec_core as sd

VERDICTS = {
    "pass": ("✓", "fits"),
    "warning": ("!", "differs, no harm"),
    "fail": ("✕", "does not fit"),
    "unchecked": ("?", "not checked"),
}


def summary(report: sd.PairReport) -> str:
    """Return the verdict in one line."""
    total = len(report.checks)
    failed = [check.name for check in report.checks if check.status == "fail"]
    warned = sum(check.status == "warning" for check in report.checks)
    if failed:
        return f"{len(failed)} of {sd.counted(total, 'check')} failed: {', '.join(failed)}"
    passed = f"All {total} checks passed" if not warned else f"{total - warned} of {total} checks passed"
    note = f", {warned} with a warning" if warned else ""
    return f"{passed}{note}: both models speak the same tokens"


def slowdown(report: sd.PairReport) -> str | None:
    """Return why a pair that works is no faster than its target alone, as far as the gate knows."""
    return next((check.explanation for check in report.checks if _is_slowdown(check)), None)


def _is_slowdown(check: sd.Check) -> bool:
    return (check.name, check.status) == ("size", "warning")


def table(report: sd.PairReport) -> str:
    """Return the table, with a row for each check and failed ones first."""
    failed_first = sorted(report.checks, key=lambda check: check.status != "fail")
    rows = "".join(_row(check) for check in failed_first)
    return (
        '<div class="report-scroll" role="region" aria-label="Report of the gate" tabindex="0">'
        '<table class="report"><thead><tr><th scope="col">Check</th><th scope="col">Verdict</th>'
        '<th scope="col">Target</th><th scope="col">Drafter</th>'
        f'<th scope="col">What it means</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(check: sd.Check) -> str:
    sign, verdict = VERDICTS.get(check.status, ("", check.status))
    if _is_slowdown(check):
        verdict = "slower"
    if check.target_value == check.drafter_value:
        values = f'<td colspan="2">both <code>{_value(check.target_value)}</code></td>'
    else:
        values = (
            f"<td><code>{_value(check.target_value)}</code></td>"
            f"<td><code>{_value(check.drafter_value)}</code></td>"
        )
    return (
        f'<tr data-verdict="{escape(check.status)}"><th scope="row">{escape(check.name)}</th>'
        f'<td class="report-verdict"><span aria-hidden="true">{sign}</span> {escape(verdict)}</td>'
        f"{values}<td>{escape(str(check.explanation))}</td></tr>"
    )


def _value(value: object) -> str:
    return "–" if value is None else escape(str(value))
