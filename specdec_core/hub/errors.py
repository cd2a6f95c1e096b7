"""Explanations of the Hub's errors: what is wrong and what to do next.

Reads the exceptions of huggingface_hub; knows nothing of the files requested. No message contains the token.
"""

from __future__ import annotations

import errno
import textwrap
from collections.abc import Iterator

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
_LONGEST_REASON = 400


def explain_hub_error(name: str, revision: str | None, error: BaseException) -> str | None:
    """Return the error and the next step in words; None if it is no error of the Hub, network or disk."""

    def caused_by(*kinds: type[BaseException]) -> BaseException | None:
        return first_cause(error, *kinds)

    page = f"{constants.ENDPOINT}/{name}"
    if caused_by(GatedRepoError):
        return _gated(name, page)
    if caused_by(RepositoryNotFoundError):
        return (
            f"{name} is neither a folder here nor a repository that the Hub shows to this machine. Check the "
            f"spelling at {page}; if it is private, set HF_TOKEN to a token with access ({TOKENS_PAGE})."
        )
    if caused_by(RevisionNotFoundError):
        return (
            f"{name} has no revision {revision!r}. Choose a branch, tag or commit listed at {page}/tree/main."
        )
    if caused_by(HFValidationError):
        return (
            f"There is no folder {name}, and a Hub id looks like owner/name. Check the path or the spelling."
        )
    if cause := caused_by(HfHubHTTPError):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        next_step = "Try again in a few minutes"
        if status in (401, 403):
            next_step = f"Check the token in HF_TOKEN, or make another at {TOKENS_PAGE}"
        return f"The Hub answered {status} when asked for {name} ({first_line(cause)}). {next_step}."
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes(error)):
        return (
            f"The disk became full while {name} was downloaded. Free space in {constants.HF_HUB_CACHE}, or "
            "set HF_HOME to a folder on another disk, and load again: what has arrived is kept."
        )
    if caused_by(LocalEntryNotFoundError) or cut_off(error):
        return (
            f"{name} is no folder here, it has not been downloaded, and {unreachable()}. Go online and try "
            "again, or give the folder of a downloaded model."
        )
    return None


def unreachable() -> str:
    """Return the reason for which the Hub is out of reach, as a clause."""
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"


def cut_off(error: BaseException) -> bool:
    """Return True for a connection that could not be made, broke or timed out."""
    return any(
        isinstance(cause, ConnectionError | TimeoutError) or _of_http_client(cause) for cause in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its explicit causes (`raise ... from`), without implicit context."""
    while error is not None:
        yield error
        error = error.__cause__


def first_cause(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Return the first of the error and its causes that is an instance of `kinds`."""
    return next((cause for cause in causes(error) if isinstance(cause, kinds)), None)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the token masked where a library included it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    token = get_token()
    return line.replace(token, "(token)") if token else line


def reason(error: BaseException) -> str:
    """Return an error's whole message in one line, shortened; for errors whose first line is only a title."""
    return textwrap.shorten(str(error), _LONGEST_REASON, placeholder=" …") or type(error).__name__


def _gated(name: str, page: str) -> str:
    if get_token() is None:
        return (
            f"{name} is gated, and this machine is not logged in. Accept its licence at {page}, make a token "
            f"of that account at {TOKENS_PAGE}, and set HF_TOKEN to it."
        )
    return (
        f"{name} is gated, and the account of this machine's token has no access. Accept its licence at "
        f"{page} with that account (the owner may have to approve it), or set HF_TOKEN to a token of an "
        "account that has access."
    )


def _of_http_client(error: BaseException) -> bool:
    """Return True for an error of the HTTP client below huggingface_hub, which differs by version."""
    return type(error).__module__.partition(".")[0].startswith(("httpx", "httpcore", "requests"))
