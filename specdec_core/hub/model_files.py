"""A model's configuration and tokenizer, from the Hub or a folder, and why they could not be read.

Reads configurations and tokenizer files, never weights; runs no code from a repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from json import JSONDecodeError
from tempfile import TemporaryDirectory

from huggingface_hub import constants
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..errors import PairUncheckableError
from .adapters import read_adapter
from .errors import causes, explain_hub_error, first_line, unreachable

_DAMAGE = (JSONDecodeError, UnicodeDecodeError)
_TOKENIZER_FILE = re.compile(r"tokenizer(?!_config)|tekken|tiktoken|vocab|spiece|sentencepiece")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What the gate reads of one model. `name` is what the caller passed, `vocabulary` token → id."""

    name: str
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    vocabulary: dict[str, int]

    @property
    def tokenizer_width(self) -> int:
        """The highest id + 1: a vocabulary may have holes, so this can be more than its entries."""
        return max(self.vocabulary.values(), default=-1) + 1


def read_model_files(
    model: str | os.PathLike[str], revision: str | None = None, token: str | None = None
) -> ModelFiles:
    """Configuration and tokenizer of a Hub id or folder, as the auto classes load them; of an adapter's
    folder those of its base, but for a tokenizer of its own.

    `token` None stands for HF_TOKEN or the saved login; what another token opens is not kept, since others,
    who may not read it, share the cache. Raises PairUncheckableError with what to do next.
    """
    if token is None:
        return _read(os.fspath(model), revision, {})
    with TemporaryDirectory() as cache:
        return _read(os.fspath(model), revision, {"token": token, "cache_dir": cache})


def _read(name: str, revision: str | None, access: Mapping[str, str]) -> ModelFiles:
    """`access` is a token with a cache of its own; empty for the machine's."""
    if (adapter := read_adapter(name)) is not None:
        base = _read(adapter.base, adapter.revision, access)
        adapter.require_width(base.config.get_text_config(decoder=True).vocab_size)
        if not _has_tokenizer_file(os.listdir(name)):
            return replace(base, name=name)
        tokenizer = _read_tokenizer(name, None, base.config, access)
        return ModelFiles(name, base.config, tokenizer, tokenizer.get_vocab())
    _require_place(name)
    where = {"revision": revision, "trust_remote_code": False} | access
    try:
        config = AutoConfig.from_pretrained(name, **where)
    except Exception as error:
        raise PairUncheckableError(_explain(name, revision, "config.json", error)) from error
    tokenizer = _read_tokenizer(name, revision, config, access)
    return ModelFiles(name, config, tokenizer, tokenizer.get_vocab())


def _read_tokenizer(
    name: str, revision: str | None, config: PreTrainedConfig, access: Mapping[str, str]
) -> PreTrainedTokenizerBase:
    where = {"revision": revision, "trust_remote_code": False} | access
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, config=config, **where)
    except Exception as error:
        message = _explain(name, revision, "the tokenizer's files", error)
        if not _has_tokenizer_file(_read_so_far(name, revision, access)):
            message = _no_tokenizer(name)
        raise PairUncheckableError(message) from error
    # Some classes (Gemma's) make up a tokenizer of a few tokens where there is no file at all.
    if type(tokenizer).vocab_files_names and not _has_tokenizer_file(_read_so_far(name, revision, access)):
        raise PairUncheckableError(_no_tokenizer(name))
    return tokenizer


def _require_place(name: str) -> None:
    """Refuses early what is plainly neither a readable folder nor a Hub id."""
    if not name.strip():
        raise PairUncheckableError("No model was named. Give a Hub id (owner/name) or a folder.")
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise PairUncheckableError(
                f"The folder {name} has no config.json. Give the folder that holds the model's config.json "
                "and tokenizer.json."
            )
    elif os.path.exists(name):
        raise PairUncheckableError(f"{name} is a file. Give the folder that holds the model's config.json.")
    elif os.path.isabs(name) or name.startswith(("./", "../", "~")):
        raise PairUncheckableError(
            f"There is no folder {name}. Check the path, or give a Hub id (owner/name)."
        )


def _read_so_far(name: str, revision: str | None, access: Mapping[str, str]) -> list[str]:
    """The names of the files that could be read: a folder's own, or those downloaded beside config.json."""
    if os.path.isdir(name):
        return os.listdir(name)
    config = cached_file(name, "config.json", revision=revision, local_files_only=True, **access)
    return os.listdir(os.path.dirname(config)) if config else []


def _has_tokenizer_file(names: list[str]) -> bool:
    return any(_TOKENIZER_FILE.search(name) for name in names)


def _no_tokenizer(name: str) -> str:
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


def _explain(name: str, revision: str | None, what: str, error: Exception) -> str:
    """What was wrong and what to do next, by the class of whatever error lies underneath."""
    if (message := explain_hub_error(name, revision, error)) is not None:
        return message
    found = list(causes(error))

    def caused_by(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in found if isinstance(cause, kinds)), None)

    # transformers raises an OSError in place of what it met in a config.json.
    if damage := caused_by(*_DAMAGE) or (isinstance(error.__context__, _DAMAGE) and error.__context__):
        return f"{name}: {what} cannot be read as JSON ({first_line(damage)}). Download or copy it again."
    if caused_by(PermissionError):
        return f"{name}: {what} may not be read ({first_line(error)}). Change the file's permissions."
    if caused_by(ImportError):
        return f"{name}: {what} cannot be read without a package that is missing: {first_line(error)}"
    if "trust_remote_code" in str(error):
        return (
            f"{name} brings Python code of its own, which is never run here. Choose a model whose "
            "architecture transformers knows."
        )
    return (
        f"{name}: {what} cannot be read ({type(error).__name__}: {first_line(error)}). It may be damaged or "
        "made for another version of transformers; download it again or choose another model."
    )
