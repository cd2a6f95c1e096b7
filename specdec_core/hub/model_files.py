"""Configuration and tokenizer of a model on the Hub or in a folder, and what they say of its weights.

Never reads weights; runs no code from a repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import constants
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TokenizersBackend,
)
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER
from transformers.utils.hub import cached_file

from ..errors import PairUncheckableError
from ..package_files import PACKAGE
from .adapters import read_adapter
from .errors import reason
from .file_names import CONFIG, MODELOPT_CONFIG, TOKENIZER
from .gguf_files import is_gguf, read_gguf
from .reach import hub_is_reachable
from .read_errors import explain_read_error, missing_tokenizer
from .stored_quantization import MODELOPT, QUANTIZATION_KEYS, StoredQuantization, stored_quantization
from .tokenizer_file import name_ends, replaced_rules

_COUNT = re.compile(r"(num|n)_\w*(layer|expert)s?|(en|de)coder_layers|depth")
_MOST_MODULES = 10_000
"""More layers or experts than any published model has. transformers builds as many as a config names."""
_TOKENIZER = "the tokenizer's files"
_TOKENIZER_FILE = re.compile(r"tokenizer(?!_config)|tekken|tiktoken|vocab|spiece|sentencepiece")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Configuration and tokenizer of one model. `name` is the caller's, `vocabulary` maps token to id.

    `replaced` is what transformers' class of the tokenizer would have put in place of its file, a clause.
    `gguf_format` is the format of the weights in a GGUF file.
    """

    name: str
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    vocabulary: dict[str, int]
    quantization: StoredQuantization | None
    replaced: str | None
    gguf_format: str | None = None

    @property
    def tokenizer_width(self) -> int:
        """The highest id + 1. A vocabulary may have holes, so this can be more than its entries."""
        return max(self.vocabulary.values(), default=-1) + 1


@dataclass(frozen=True, slots=True)
class _Access:
    """A Hub token and the cache folder for its downloads; None stands for the machine's own.

    `offline` is True where only the cache can be read.
    """

    token: str | None = None
    cache: str | None = None
    offline: bool = False


def read_model_files(
    model: str | os.PathLike[str], revision: str | None = None, token: str | None = None
) -> ModelFiles:
    """Read configuration and tokenizer of a Hub id, folder or GGUF file, as transformers' auto classes do.

    Where the class of the tokenizer replaces what tokenizer.json says, what the file says is used.
    An adapter's folder has its base's configuration, and its base's tokenizer unless it has its own. `token`
    None stands for HF_TOKEN or the saved login. Files read with another token go to a temporary cache: users
    without that access share the machine's. Raises PairUncheckableError with the next step.
    """
    name = os.fspath(model)
    require_no_local_revision(name, revision)
    if token is None:
        return _read(name, revision, _Access())
    with TemporaryDirectory() as cache:
        return _read(name, revision, _Access(token, cache))


def require_no_local_revision(name: str, revision: str | None) -> None:
    """Raise PairUncheckableError for a revision of a folder or file that is here."""
    if revision is None:
        return
    if name.startswith(PACKAGE):
        kind = "a file in a package"
    elif os.path.exists(name):
        kind = "a folder here" if os.path.isdir(name) else "a file here"
    else:
        return
    raise PairUncheckableError(f"{name} is {kind}, which has no revisions. Leave its revision out.")


def _read(name: str, revision: str | None, access: _Access) -> ModelFiles:
    if (adapter := read_adapter(name)) is not None:
        base = _read(adapter.base, adapter.revision, access)
        adapter.require_width(base.config.get_text_config(decoder=True).vocab_size)
        if not _has_tokenizer_file(os.listdir(name)):
            return replace(base, name=name)
        tokenizer, replaced = _usable_tokenizer(name, None, base.config, access)
        return replace(
            base, name=name, tokenizer=tokenizer, vocabulary=tokenizer.get_vocab(), replaced=replaced
        )
    if is_gguf(name):
        file = read_gguf(name, revision, access.token)
        try:
            files = _read(file.folder, None, access)
        except PairUncheckableError as error:  # which names the folder
            raise PairUncheckableError(str(error).replace(file.folder, name)) from error
        return replace(files, name=name, gguf_format=file.format)
    _require_source(name)
    if not os.path.isdir(name):
        access = replace(access, offline=not hub_is_reachable())
    config = _read_config(name, revision, access)
    tokenizer, replaced = _usable_tokenizer(name, revision, config, access)
    quantization = stored_quantization(config)
    if quantization is None and _has_file(name, MODELOPT_CONFIG, revision, access):
        quantization = StoredQuantization({"quant_method": MODELOPT})
    return ModelFiles(name, config, tokenizer, tokenizer.get_vocab(), quantization, replaced)


def _read_config(name: str, revision: str | None, access: _Access) -> PreTrainedConfig:
    try:
        values, _ = PreTrainedConfig.get_config_dict(
            name,
            revision=revision,
            token=access.token,
            cache_dir=access.cache,
            local_files_only=access.offline,
        )
        _require_buildable(name, values)
        return AutoConfig.from_pretrained(
            name,
            revision=revision,
            trust_remote_code=False,
            token=access.token,
            cache_dir=access.cache,
            local_files_only=access.offline,
        )
    except PairUncheckableError:
        raise
    except Exception as error:
        raise PairUncheckableError(explain_read_error(name, revision, CONFIG, error)) from error


def _require_buildable(name: str, values: Mapping[str, Any]) -> None:
    """Raise PairUncheckableError for a number of layers or experts that would take hours to build.

    So it does for a quantization that is no object: transformers raises an AttributeError for that.
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            _require_buildable(name, value)
        elif key in QUANTIZATION_KEYS and value is not None:
            raise PairUncheckableError(
                f"{name}: {key} in {CONFIG} is {value!r}, in place of an object with a quant_method. "
                "Correct it, or remove it if the weights are not quantized."
            )
        elif _COUNT.fullmatch(key) and isinstance(value, int) and value > _MOST_MODULES:
            raise PairUncheckableError(
                f"{name}: {CONFIG} has {key} = {value:,}, more than any model has. Correct it."
            )


def _usable_tokenizer(
    name: str, revision: str | None, config: PreTrainedConfig, access: _Access
) -> tuple[PreTrainedTokenizerBase, str | None]:
    """`_read_tokenizer`, tried on a text. Raises PairUncheckableError if that cannot be encoded."""
    tokenizer, replaced = _read_tokenizer(name, revision, config, access)
    # It bounds nothing here, and files have lists and negative numbers in its place.
    tokenizer.model_max_length = VERY_LARGE_INTEGER
    try:
        tokenizer.decode(tokenizer.encode("Hello, world"), skip_special_tokens=True)
    except Exception as error:
        raise PairUncheckableError(explain_read_error(name, revision, _TOKENIZER, error)) from error
    return tokenizer, replaced


def _read_tokenizer(
    name: str, revision: str | None, config: PreTrainedConfig, access: _Access
) -> tuple[PreTrainedTokenizerBase, str | None]:
    """Return the tokenizer, and what its class would have replaced (`ModelFiles.replaced`)."""
    try:
        built = AutoTokenizer.from_pretrained(
            name,
            config=config,
            revision=revision,
            trust_remote_code=False,
            token=access.token,
            cache_dir=access.cache,
            local_files_only=access.offline,
        )
    except Exception as error:
        names = _file_names(name, revision, access)
        if not _has_tokenizer_file(names):
            raise PairUncheckableError(missing_tokenizer(name)) from error
        if TOKENIZER not in names:
            raise PairUncheckableError(explain_read_error(name, revision, _TOKENIZER, error)) from error
        filed = _read_tokenizer_file(name, revision, access)
        return filed, f"transformers' class cannot read {name}'s tokenizer ({reason(error)})"
    names = _file_names(name, revision, access)
    # Some classes (Gemma's) make up a tokenizer of a few tokens where there is no file at all.
    if getattr(built, "vocab_files_names", None) and not _has_tokenizer_file(names):
        raise PairUncheckableError(missing_tokenizer(name))
    if type(built) is TokenizersBackend or TOKENIZER not in names:
        return built, None
    filed = _read_tokenizer_file(name, revision, access)
    if not isinstance(built, TokenizersBackend):
        return filed, f"{type(built).__name__} does not read {name}'s {TOKENIZER}"
    if not (replaced := replaced_rules(built, filed)):
        return built, None
    name_ends(filed, built)
    return filed, f"{type(built).__name__} replaces {', '.join(replaced)} of {name}'s {TOKENIZER}"


def _read_tokenizer_file(name: str, revision: str | None, access: _Access) -> TokenizersBackend:
    """Return the tokenizer by the rules of tokenizer.json. Raises PairUncheckableError."""
    try:
        return TokenizersBackend.from_pretrained(
            name,
            revision=revision or constants.DEFAULT_REVISION,
            trust_remote_code=False,
            token=access.token,
            cache_dir=access.cache,
            local_files_only=access.offline,
        )
    except Exception as error:
        raise PairUncheckableError(explain_read_error(name, revision, _TOKENIZER, error)) from error


def _require_source(name: str) -> None:
    """Raise PairUncheckableError for a name that is neither a readable folder nor a possible Hub id."""
    if not name.strip():
        raise PairUncheckableError("No model was named. Give a Hub id (owner/name) or a folder.")
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, CONFIG)):
            if files := sorted(file for file in os.listdir(name) if is_gguf(file)):
                file = os.path.join(name, files[0])
                raise PairUncheckableError(
                    f"The folder {name} has no config.json. Name its GGUF file: {file}"
                )
            raise PairUncheckableError(
                f"The folder {name} has no config.json. Give the folder that holds the model's config.json "
                "and tokenizer.json."
            )
    elif os.path.exists(name):
        raise PairUncheckableError(
            f"{name} is a file. Give the folder that holds the model's config.json, or a .gguf file."
        )
    elif os.path.isabs(name) or name.startswith(("./", "../", "~")):
        raise PairUncheckableError(
            f"There is no folder {name}. Check the path, or give a Hub id (owner/name)."
        )


def _has_file(name: str, file: str, revision: str | None, access: _Access) -> bool:
    """Return True for a file that the folder or repository has. Asks the Hub where it can be reached."""
    if os.path.isdir(name):
        return os.path.isfile(os.path.join(name, file))
    found = cached_file(
        name,
        file,
        revision=revision,
        token=access.token,
        cache_dir=access.cache,
        local_files_only=access.offline,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None


def _file_names(name: str, revision: str | None, access: _Access) -> list[str]:
    """Return the names of a folder's files, or of a Hub model's files in the cache beside config.json."""
    if os.path.isdir(name):
        return os.listdir(name)
    config = cached_file(
        name, CONFIG, revision=revision, local_files_only=True, token=access.token, cache_dir=access.cache
    )
    return os.listdir(os.path.dirname(config)) if config else []


def _has_tokenizer_file(names: list[str]) -> bool:
    return any(_TOKENIZER_FILE.search(name) for name in names)
