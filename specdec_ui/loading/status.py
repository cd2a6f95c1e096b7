"""The status of the page in words: what is loaded, what is on its way, what was refused and why.

Makes HTML in which every value is escaped; knows nothing of components.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from ..parts import gate_report as gate
from ..parts.terms import term
from ..state.holder import Loaded


def empty() -> str:
    """Nothing is loaded."""
    return _box(
        "empty",
        "<p><strong>No model is loaded.</strong> Press Load: <em>stories</em> ships with this page, needs no "
        "GPU and no account, and is ready in seconds.</p>",
    )


def loading(name: str, message: str, fraction: float | None) -> str:
    """A pair is on its way; `fraction` is None where the share that is done is not known."""
    value = "" if fraction is None else f' value="{min(max(fraction, 0.0), 1.0):.3f}"'
    return _box(
        "loading",
        f"<p><strong>Loading {escape(name)}.</strong> {escape(message)}</p>"
        f'<progress max="1"{value} aria-label="Loading {escape(name)}"></progress>',
    )


def ready(loaded: Loaded, report: Any = None) -> str:
    """A pair is loaded and answers."""
    return _box("ready", f"<p>{_pair_line(loaded)}</p>" + _facts(loaded.engine.info) + _details(report))


def cancelled(name: str, current: Loaded | None) -> str:
    """A load was called off; what was loaded before still is."""
    note = (
        f"<p><strong>Loading {escape(name)} was cancelled.</strong> What had been downloaded is kept: "
        "loading it again goes on from there.</p>"
    )
    if current is None:
        return _box("empty", note + "<p>No model is loaded.</p>")
    return _box("ready", f"{note}<p>{_pair_line(current)}</p>" + _facts(current.engine.info))


def refused(name: str, error: Exception, current: Loaded | None, report: Any = None) -> str:
    """A pair was not loaded; what was loaded before still is."""
    still = (
        f"<strong>{escape(_name(current))}</strong> is still loaded and goes on answering."
        if current
        else "Nothing is loaded. Choose another preset and press Load."
    )
    if report is None:
        why = f'<p class="status-error">{_with_links(str(error))}</p>'
    else:
        why = (
            "<p>These two models cannot work together: the target would be judging tokens that mean "
            f"something else to the drafter. {escape(gate.summary(report))}.</p>" + gate.table(report)
        )
    verdict = "was not loaded" if report is None else "was refused"
    return _box("refused", f"<p><strong>{escape(name)} {verdict}.</strong> {still}</p>{why}")


def _with_links(text: str) -> str:
    """Escaped, the web addresses in it as links."""
    link = r'<a href="\g<0>" target="_blank" rel="noopener noreferrer">\g<0></a>'
    return re.sub(r"https?://[\w.:~%/-]*[\w/-]", link, escape(text))


def _box(state: str, body: str) -> str:
    return f'<div class="status" data-state="{state}" role="status">{body}</div>'


def _name(loaded: Loaded) -> str:
    return loaded.engine.info.preset or loaded.engine.info.title


def _pair_line(loaded: Loaded) -> str:
    info = loaded.engine.info
    target = f"{escape(_short(info.target))} ({_count(info.target_parameters)} parameters)"
    if info.drafter is None:
        return f"<strong>{escape(_name(loaded))}</strong> is loaded: {target}, without a drafter."
    drafter = f"{escape(_short(info.drafter))} ({_count(info.drafter_parameters)})"
    return f"<strong>{escape(_name(loaded))}</strong> is loaded: target {target}, drafter {drafter}."


def _facts(info: Any) -> str:
    facts = {
        "precision": _precision(info),
        "device": info.device,
        "runner": f"{info.runner} ({info.runner_reason})" if info.runner_reason else info.runner,
        "context": f"{info.context_length:,} tokens",
        "memory": _size(info.memory_bytes),
    }
    items = "".join(
        f"<div><dt>{term(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>'


def _details(report: Any) -> str:
    if report is None:
        return ""
    return (
        f'<details class="status-report"><summary>{escape(gate.summary(report))}</summary>'
        f"{gate.table(report)}</details>"
    )


def _precision(info: Any) -> str:
    held = [q for q in (info.target_quantization, info.drafter_quantization) if q is not None]
    names = [info.dtype if q == "none" else f"{q} ({info.dtype})" for q in held]
    return names[0] if len(set(names)) == 1 else f"target {names[0]}, drafter {names[1]}"


def _short(model: str) -> str:
    """A folder by its last two parts; a Hub id as it is."""
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
