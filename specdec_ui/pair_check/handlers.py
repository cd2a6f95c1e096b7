"""Handlers of the Pair check tab: from two names to the gate's report as frames for the page.

Knows the gate by its public name; nothing of components.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

import specdec_core as sd

from ..loading import bar as load_bar
from ..loading.own_pair import OwnPair
from ..parts import gate_report
from ..parts.frames import LoadFrame, notice
from ..parts.messages import checked_message
from ..state.holder import EngineHolder, import_engine

log = logging.getLogger(__name__)

LONGEST_NAME = 500
"""Most characters in a name or revision."""


@dataclass(frozen=True)
class PairFields:
    """Values of the tab's fields, in their order; unchecked, as a browser sent them."""

    target: Any
    drafter: Any
    target_revision: Any = None
    drafter_revision: Any = None
    trim: Any = False
    nf4: Any = False


@dataclass(frozen=True)
class PairFrame:
    """The tab's next state; `report` and `about` are HTML made here, `passed` is a loadable pair."""

    report: str
    passed: OwnPair | None = None
    about: str = ""
    toml: str = ""
    checking: bool = False


@dataclass(frozen=True)
class Login:
    """A visitor's login, on servers that offer one; `token`, if any, gives the check their access."""

    token: str | None = field(default=None, repr=False)


def check(
    holder: EngineHolder, fields: PairFields, others: int, locked: bool, login: Login | None = None
) -> Iterator[PairFrame]:
    """Run the gate; yield progress, then its report. Reads no weights.

    `login` is None on servers without logins.
    """
    try:
        pair = _own_pair(fields)
    except sd.SpecDecError as error:
        yield PairFrame(notice(str(error)))
        return
    yield PairFrame(
        '<div class="compare-progress" role="status"><p>Reading configurations and tokenizers; no weights '
        'are downloaded.</p><progress max="1" aria-label="Check"></progress></div>',
        checking=True,
    )
    try:
        import_engine()
        report = sd.check_pair(
            pair.target,
            pair.drafter,
            target_revision=pair.target_revision,
            drafter_revision=pair.drafter_revision,
            vocab_padding=pair.vocab_padding,
            token=login.token if login else None,
        )
    except sd.PairUncheckableError as error:
        yield PairFrame(_uncheckable(_reason(error, login)))
    except sd.SpecDecError as error:
        yield PairFrame(notice(str(error)))
    except Exception:
        log.exception("A pair could not be checked")
        yield PairFrame(
            notice("The check broke off because of a fault on the server; its log has the details.")
        )
    else:
        yield _result(pair, report, holder, others, locked)


def load_progress(frame: LoadFrame) -> str:
    """Return a load's state as HTML for the place below the button that began it."""
    if frame.error is not None:
        return notice(frame.error)
    if frame.loaded is not None:
        return (
            f'<p role="status"><strong>{escape(frame.loaded)}</strong> is loaded. Ask it in the tab Chat.</p>'
        )
    return frame.status or ""


def _reason(error: sd.PairUncheckableError, login: Login | None) -> str:
    """The error without the token; for a gated model, with the way to get access by logging in."""
    reason = str(error)
    if login is not None and login.token:
        reason = reason.replace(login.token, "(token)")
    if login is None or "is gated" not in reason:
        return reason
    if login.token:
        return (
            f"{reason} You are logged in here: what counts for this check is the access of your own account."
        )
    return f"{reason} Or accept it with your own account and log in above: that opens it for this check."


def _own_pair(fields: PairFields) -> OwnPair:
    """The pair in the fields. Raises PromptError, naming the wrong field."""
    target, drafter = _name(fields.target, "target"), _name(fields.drafter, "drafter")
    return OwnPair(
        target,
        drafter,
        bool(fields.trim),
        bool(fields.nf4),
        _revision(fields.target_revision, "target"),
        _revision(fields.drafter_revision, "drafter"),
    )


def _revision(text: object, role: str) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return None
    return _line(text, f"revision of the {role}")


def _name(text: object, role: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise sd.PromptError(f"Name the {role}: a Hub id such as owner/name, or a folder or .gguf file here.")
    return _line(text, f"name of the {role}")


def _line(text: str, name: str) -> str:
    line = checked_message(text).strip()
    if "\n" in line or len(line) > LONGEST_NAME:
        raise sd.PromptError(f"The {name} must be one line of at most {LONGEST_NAME} characters.")
    return line


def _result(
    pair: OwnPair, report: sd.PairReport, holder: EngineHolder, others: int, locked: bool
) -> PairFrame:
    names = f"<strong>{escape(pair.target)}</strong> drafted by <strong>{escape(pair.drafter)}</strong>"
    verdict, lead, reason = _verdict(report)
    report_html = (
        f'<div class="pair-verdict" data-verdict="{verdict}" role="status"><p class="pair-lead">{lead}</p>'
        f"{f'<p><strong>{escape(reason)}</strong></p>' if reason else ''}"
        f"<p>{names}. {escape(gate_report.summary(report))}.</p></div>{gate_report.table(report)}"
    )
    if not report.ok:
        return PairFrame(report_html)
    loaded = holder.current
    preset = pair.preset(loaded.preset if loaded else None)
    about = load_bar.about(preset, loaded, others, locked)
    return PairFrame(report_html, passed=pair, about=about, toml=pair.toml())


def _verdict(report: sd.PairReport) -> tuple[str, str, str]:
    """The mark of the report, its first line, and a reason that needs to be read."""
    if not report.ok:
        return "fail", "These two cannot work together.", ""
    if slow := gate_report.slowdown(report):
        return "warning", "These two can work together, but it will not be faster.", slow
    return "pass", "These two can work together.", ""


def _uncheckable(reason: str) -> str:
    return (
        '<div class="pair-verdict" data-verdict="fail" role="alert">'
        f'<p class="pair-lead">This pair could not be checked.</p><p>{escape(reason)}</p></div>'
    )
