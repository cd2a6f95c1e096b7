"""Status of the page as HTML: the loaded pair, the progress of a load, or a refusal with its reason.

Escapes every value; knows nothing of components.
"""

from __future__ import annotations

import re
from html import escape

import specdec_core as sd

from ..parts import gate_report as gate
from ..parts.terms import term
from ..state.holder import Loaded


def empty() -> str:
    """Return the status before the first load."""
    return _box(
        "empty",
        "<p><strong>No model is loaded.</strong> Press Load, or send a message: <em>stories</em> ships with "
        "this page, needs no GPU and no account, and is ready in seconds.</p>",
    )


def loading(name: str, message: str, fraction: float | None) -> str:
    """Return the status during a load; `fraction` is None if the completed share is not known."""
    value = "" if fraction is None else f' value="{min(max(fraction, 0.0), 1.0):.3f}"'
    return _box(
        "loading",
        f"<p><strong>Loading {escape(name)}.</strong> {escape(message)}</p>"
        f'<progress max="1"{value} aria-label="Loading {escape(name)}"></progress>',
    )


def ready(loaded: Loaded) -> str:
    """Return the status of a loaded pair, with the gate's report if there is one."""
    return _box("ready", _pair_lines(loaded) + _details(loaded.engine.report))


def cancelled(name: str, current: Loaded | None) -> str:
    """Return the status after a cancelled load, with the `current` pair, which stays loaded."""
    note = (
        f"<p><strong>Loading {escape(name)} was cancelled.</strong> What had been downloaded is kept: "
        "loading it again goes on from there.</p>"
    )
    if current is None:
        return _box("empty", note + "<p>No model is loaded.</p>")
    return _box("ready", note + _pair_lines(current))


def refused(name: str, error: str, current: Loaded | None, report: sd.PairReport | None = None) -> str:
    """Return the status after a refused or failed load, with the `current` pair, which stays loaded."""
    still = (
        f"<strong>{escape(_name(current))}</strong> is still loaded and goes on answering."
        if current
        else "Nothing is loaded. Choose another preset and press Load."
    )
    if report is None:
        why = f'<p class="status-error">{_with_links(error)}</p>'
    else:
        why = (
            "<p>These two models cannot work together: the target would be judging tokens that mean "
            f"something else to the drafter. {escape(gate.summary(report))}.</p>" + gate.table(report)
        )
    verdict = "was not loaded" if report is None else "was refused"
    return _box("refused", f"<p><strong>{escape(name)} {verdict}.</strong> {still}</p>{why}")


def _with_links(text: str) -> str:
    """Return the text escaped, with web addresses as links."""
    link = r'<a href="\g<0>" target="_blank" rel="noopener noreferrer">\g<0></a>'
    return re.sub(r"https?://[\w.:~%/-]*[\w/-]", link, escape(text))


def _box(state: str, body: str) -> str:
    return f'<div class="status" data-state="{state}" role="status">{body}</div>'


def _name(loaded: Loaded) -> str:
    return loaded.engine.info.preset or loaded.engine.info.title


def _pair_lines(loaded: Loaded) -> str:
    """The pair, what to know before the first message, and the facts."""
    info, report = loaded.engine.info, loaded.engine.report
    notes = [*info.template_notes, *info.settings_notes]
    if info.drafter_context_length is not None:
        notes.append(
            f"The drafter holds {sd.counted(info.drafter_context_length, 'token')} of conversation; beyond "
            "that an answer goes on without drafts."
        )
    if report is not None and (slow := gate.slowdown(report)):
        notes.append(slow)
    lines = "".join(f'<p class="status-note">{escape(note)}</p>' for note in notes)
    return f"<p>{_pair_line(loaded)}</p>{lines}{_facts(info)}"


def _pair_line(loaded: Loaded) -> str:
    info = loaded.engine.info
    target = f"{escape(_short(info.target))} ({_count(info.target_parameters)} parameters)"
    if info.drafter is None:
        return f"<strong>{escape(_name(loaded))}</strong> is loaded: {target}, without a drafter."
    drafter = f"{escape(_short(info.drafter))} ({_count(info.drafter_parameters)})"
    return f"<strong>{escape(_name(loaded))}</strong> is loaded: target {target}, drafter {drafter}."


def _facts(info: sd.EngineInfo) -> str:
    facts = {
        "precision": _precision(info),
        "device": info.device_and_threads,
        "runner": f"{info.runner} ({info.runner_reason})" if info.runner_reason else info.runner,
        "context": sd.counted(info.context_length, "token"),
        "memory": _size(info.memory_bytes),
    }
    items = "".join(
        f"<div><dt>{term(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>'


def _details(report: sd.PairReport | None) -> str:
    if report is None:
        return ""
    return (
        f'<details class="status-report"><summary>{escape(gate.summary(report))}</summary>'
        f"{gate.table(report)}</details>"
    )


def _precision(info: sd.EngineInfo) -> str:
    formats = [q for q in (info.target_quantization, info.drafter_quantization) if q is not None]
    names = [info.dtype if q == "none" else f"{q} ({info.dtype})" for q in formats]
    return names[0] if len(set(names)) == 1 else f"target {names[0]}, drafter {names[1]}"


def _short(model: str) -> str:
    """Return a Hub id as it is, a folder's last two parts."""
    parts = model.rstrip("/").split("/")
    return "/".join(parts[-2:])


def _count(parameters: int | None) -> str:
    if parameters is None:
        return "–"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
