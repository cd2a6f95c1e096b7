"""What the Pair check tab does: two names in, the gate's report out; input to frames.

Knows the gate by its public name; nothing of components.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import specdec_core as sd

from ..loading import bar as load_bar
from ..loading.own_pair import OwnPair
from ..parts import gate_report as report
from ..parts.frames import notice
from ..parts.messages import checked_message
from ..state.holder import EngineHolder, import_engine

log = logging.getLogger(__name__)

LONGEST_NAME = 500


@dataclass(frozen=True)
class Given:
    """What the tab's fields hold, in their order; unchecked, as a browser sent it."""

    target: Any
    drafter: Any
    target_revision: Any = None
    drafter_revision: Any = None
    trim: Any = False
    nf4: Any = False


@dataclass(frozen=True)
class PairFrame:
    """What the tab shows next; `shown` and `about` are HTML made here, `passed` a pair that may be loaded."""

    shown: str
    passed: OwnPair | None = None
    about: str = ""
    toml: str = ""
    checking: bool = False


@dataclass(frozen=True)
class Login:
    """Who asks where visitors can log in: `token` opens to this check what their account may read, if any."""

    token: str | None = field(default=None, repr=False)


def check(
    holder: EngineHolder, given: Given, others: int, locked: bool, login: Login | None = None
) -> Iterator[PairFrame]:
    """Runs the gate and shows what it says; reads no weights. `login` is None where nobody can log in."""
    try:
        pair = _own_pair(given)
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
        result = sd.check_pair(
            pair.target,
            pair.drafter,
            target_revision=pair.target_revision,
            drafter_revision=pair.drafter_revision,
            vocab_padding=pair.vocab_padding,
            token=login.token if login else None,
        )
    except sd.PairUncheckableError as error:
        yield PairFrame(_refusal("This pair could not be checked.", _why(error, login)))
    except sd.SpecDecError as error:
        yield PairFrame(notice(str(error)))
    except Exception:
        log.exception("A pair could not be checked")
        yield PairFrame(
            notice("The check broke off because of a fault on the server; its log has the details.")
        )
    else:
        yield _result(pair, result, holder, others, locked)


def _why(error: sd.PairUncheckableError, login: Login | None) -> str:
    """The error without the token, and with what logging in could do about it."""
    why = str(error)
    if login is not None and login.token:
        why = why.replace(login.token, "(token)")
    if login is None or "is gated" not in why:
        return why
    if login.token:
        return f"{why} You are logged in here: what counts for this check is the access of your own account."
    return f"{why} Or accept it with your own account and log in above: that opens it for this check."


def _own_pair(given: Given) -> OwnPair:
    """Raises PromptError, saying which field is wrong."""
    target, drafter = _name(given.target, "target"), _name(given.drafter, "drafter")
    return OwnPair(
        target,
        drafter,
        bool(given.trim),
        bool(given.nf4),
        _revision(given.target_revision, target, "target"),
        _revision(given.drafter_revision, drafter, "drafter"),
    )


def _revision(text: object, model: str, role: str) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return None
    if Path(model).is_dir():
        raise sd.PromptError(f"The {role} is a folder, which has no revisions. Leave its revision empty.")
    return _line(text, f"revision of the {role}")


def _name(text: object, role: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise sd.PromptError(f"Name the {role}: a Hub id such as owner/name, or a folder of the server.")
    return _line(text, f"name of the {role}")


def _line(text: str, what: str) -> str:
    line = checked_message(text).strip()
    if "\n" in line or len(line) > LONGEST_NAME:
        raise sd.PromptError(f"The {what} must be one line of at most {LONGEST_NAME} characters.")
    return line


def _result(pair: OwnPair, result: Any, holder: EngineHolder, others: int, locked: bool) -> PairFrame:
    names = f"<strong>{escape(pair.target)}</strong> drafted by <strong>{escape(pair.drafter)}</strong>"
    verdict = "These two can work together." if result.ok else "These two cannot work together."
    shown = (
        f'<div class="pair-verdict" data-verdict="{"pass" if result.ok else "fail"}" role="status">'
        f"<p class='pair-lead'>{verdict}</p><p>{names}. {escape(report.summary(result))}.</p></div>"
        f"{report.table(result)}"
    )
    if not result.ok:
        return PairFrame(shown)
    loaded = holder.current
    preset = pair.preset(loaded.preset if loaded else None)
    about = load_bar.about(preset, loaded, others, locked)
    return PairFrame(shown, passed=pair, about=about, toml=pair.toml())


def _refusal(lead: str, why: str) -> str:
    return (
        f'<div class="pair-verdict" data-verdict="fail" role="alert"><p class="pair-lead">{lead}</p>'
        f"<p>{escape(why)}</p></div>"
    )
