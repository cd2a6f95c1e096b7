"""What the Pair check tab does: two names in, the gate's report out; input to frames.

Knows the gate by its public name; nothing of components.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import specdec_core as sd

from . import load_bar, report
from .frames import notice
from .holder import EngineHolder, import_engine
from .messages import checked_message
from .own_preset import OwnPair

log = logging.getLogger(__name__)

LONGEST_NAME = 500


@dataclass(frozen=True)
class PairFrame:
    """What the tab shows next; `shown` and `about` are HTML made here, `passed` a pair that may be loaded."""

    shown: str
    passed: OwnPair | None = None
    about: str = ""
    toml: str = ""
    checking: bool = False


def check(
    holder: EngineHolder, target: str, drafter: str, trim: bool, nf4: bool, others: int, locked: bool
) -> Iterator[PairFrame]:
    """Runs the gate and shows what it says; reads no weights."""
    try:
        pair = OwnPair(_name(target, "target"), _name(drafter, "drafter"), bool(trim), bool(nf4))
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
        result = sd.check_pair(pair.target, pair.drafter, vocab_padding=pair.vocab_padding)
    except sd.PairUncheckableError as error:
        yield PairFrame(_refusal("This pair could not be checked.", str(error)))
    except sd.SpecDecError as error:
        yield PairFrame(notice(str(error)))
    except Exception:
        log.exception("A pair could not be checked")
        yield PairFrame(
            notice("The check broke off because of a fault on the server; its log has the details.")
        )
    else:
        yield _result(pair, result, holder, others, locked)


def _name(text: object, role: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise sd.PromptError(f"Name the {role}: a Hub id such as owner/name, or a folder of the server.")
    name = checked_message(text).strip()
    if "\n" in name or len(name) > LONGEST_NAME:
        raise sd.PromptError(f"The name of the {role} must be one line of at most {LONGEST_NAME} characters.")
    return name


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
