"""Comparison of the sizes of target and drafter: a drafter as large as its target cannot make it faster.

Counts the parameters of the configurations' models, without weights.
"""

from __future__ import annotations

from ..hub.model_files import ModelFiles
from ..runners.skeleton import parameter_count
from .report import Check

NAME = "size"


def check_size(target: ModelFiles, drafter: ModelFiles) -> Check:
    """Compare the numbers of parameters. A warning at most: such a pair answers rightly, only slower."""
    target_count, drafter_count = parameter_count(target.config), parameter_count(drafter.config)
    values = _count_text(target_count), _count_text(drafter_count)
    if target_count is None or drafter_count is None:
        explanation = "The parameters cannot be counted from config.json, so nothing is said about speed."
        return Check(NAME, "pass", *values, explanation)
    if drafter_count < target_count:
        explanation = f"The drafter has {drafter_count / target_count:.0%} of the target's parameters."
        return Check(NAME, "pass", *values, explanation)
    size = "as large as" if drafter_count == target_count else "larger than"
    return Check(
        NAME,
        "warning",
        *values,
        f"The drafter is {size} the target, so each draft costs as much as the token that it saves: answers "
        "will be slower than without a drafter. Choose a smaller model, or n-gram drafting.",
    )


def _count_text(count: int | None) -> str:
    if count is None:
        return "not known"
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit} parameters"
    return f"{count:,} parameters"
