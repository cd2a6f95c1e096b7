"""Errors of a failed load, written for people whatever went wrong."""

from __future__ import annotations

import logging
from typing import NoReturn

from ..errors import AnswerError, LoadError, SpecDecError
from ..hub.errors import first_line, reason
from ..out_of_memory import out_of_memory, release_memory
from ..progress import Watch
from .plan import PairPlan


def raise_load_failure(plan: PairPlan, watch: Watch, error: Exception) -> NoReturn:
    """Free what a failed load left in memory, then raise its error.

    Exceptions of `on_progress` and of this package are passed on. Any other is a LoadError: files made by
    others hold values of any kind.
    """
    logging.getLogger(__name__).debug("loading %s failed", plan.title, exc_info=error)
    release_memory(error)
    if out_of_memory(error):
        raise LoadError(
            f"{plan.title}: memory ran out on {plan.device} while the pair was made ready "
            f"({first_line(error)}). Choose a smaller quantization or pair, or free memory."
        ) from None
    if isinstance(error, AnswerError):
        raise LoadError(f"{plan.title} was loaded, but cannot answer: {error}") from None
    if isinstance(error, SpecDecError) or error is watch.raised:
        raise error
    raise LoadError(
        f"{plan.title} could not be made ready ({type(error).__name__}: {reason(error)}). Its files may be "
        "damaged, or made for another version of transformers. Download them again, or choose another model."
    ) from None
