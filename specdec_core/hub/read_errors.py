"""Explanations of errors while a model's configuration and tokenizer are read, with the next step."""

from __future__ import annotations

import os
from json import JSONDecodeError

from huggingface_hub import constants

from .errors import explain_hub_error, first_cause, first_line, reason, unreachable

_DAMAGE = (JSONDecodeError, UnicodeDecodeError)


def explain_read_error(name: str, revision: str | None, what: str, error: Exception) -> str:
    """Return the error and the next step in words, by the class of the underlying error."""
    if (message := explain_hub_error(name, revision, error)) is not None:
        return message
    # transformers raises an OSError without a cause for a config.json that is not JSON.
    if damage := first_cause(error, *_DAMAGE) or (
        isinstance(error.__context__, _DAMAGE) and error.__context__
    ):
        return f"{name}: {what} cannot be read as JSON ({first_line(damage)}). Download or copy it again."
    if first_cause(error, PermissionError):
        return f"{name}: {what} may not be read ({first_line(error)}). Change the file's permissions."
    if first_cause(error, ImportError):
        return f"{name}: {what} cannot be read without a package that is missing: {first_line(error)}"
    if "trust_remote_code" in str(error):
        return (
            f"{name} brings Python code of its own, which is never run here. Choose a model whose "
            "architecture transformers knows."
        )
    return (
        f"{name}: {what} cannot be read ({type(error).__name__}: {reason(error)}). It may be damaged or "
        "made for another version of transformers; download it again or choose another model."
    )


def missing_tokenizer(name: str) -> str:
    """Return the message for a folder or repository without tokenizer files."""
    if not os.path.isdir(name):
        return (
            f"No tokenizer files of {name} could be read: the repository has none, or they are not "
            f"downloaded and {unreachable()}. Look at {constants.ENDPOINT}/{name}/tree/main, or give a "
            "folder with them."
        )
    return (
        f"{name} has no tokenizer files. Give a model with its tokenizer.json (for a fine-tuned model: copy "
        "it from the model that it was made from)."
    )
