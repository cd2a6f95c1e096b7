"""A model's weights from the Hub into its cache: which files, room for them, progress, and what went wrong.

Fetches safetensors and the two configuration files beside them, nothing else. Knows nothing of what is done
with the files. An interrupted download keeps its finished files; the next one fetches the rest.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from tqdm.auto import tqdm

from .errors import LoadError
from .hub_errors import cut_off, explain_hub_error, first_line
from .units import gigabytes

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_CONFIGURATION = ("config.json", "generation_config.json")
_ROOM_TO_SPARE_BYTES = 100_000_000
_SECONDS_BETWEEN_REPORTS = 0.2

OnBytes = Callable[[int], None]
"""Called with the bytes of a download that have arrived so far."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Download:
    """What of a Hub model is not here yet, at one commit."""

    model: str
    commit: str
    missing: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.missing)


def plan_download(model: str, revision: str | None = None) -> Download | None:
    """What must be fetched before `model` can be loaded; None for a folder, or where the Hub is out of reach
    and everything is here.

    Asks the Hub for sizes; downloads no weights. Raises LoadError.
    """
    if Path(model).is_dir():
        return None
    try:
        info = HfApi(endpoint=constants.ENDPOINT).model_info(
            model, revision=revision, files_metadata=True, timeout=constants.DEFAULT_REQUEST_TIMEOUT
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = _weight_files(model, info.sha, sizes)
    except LoadError:
        raise
    except Exception as error:
        if downloaded_folder(model, revision) is not None:
            return None
        raise LoadError(_explain(model, revision, error)) from error
    wanted = [*(name for name in _CONFIGURATION if name in sizes), *names]
    missing = [RemoteFile(name, sizes.get(name, 0)) for name in wanted if not _is_here(model, name, info.sha)]
    return Download(model, info.sha, tuple(missing))


def require_disk_space(downloads: Sequence[Download]) -> None:
    """Raises LoadError where the cache's disk has no room for all of them."""
    needed = sum(download.size_bytes for download in downloads)
    if not needed:
        return
    cache = Path(constants.HF_HUB_CACHE)
    place = next(folder for folder in [cache, *cache.parents] if folder.exists())
    free = shutil.disk_usage(place).free
    if needed + _ROOM_TO_SPARE_BYTES > free:
        names = " and ".join(download.model for download in downloads if download.missing)
        raise LoadError(
            f"{names}: {gigabytes(needed)} are to be downloaded to {cache}, and {gigabytes(free)} are "
            "free there. Free space, or set HF_HOME to a folder on another disk."
        )


def fetch(download: Download, on_bytes: OnBytes) -> str:
    """Downloads what is missing; the folder that holds the model's files.

    Raises LoadError, and at once whatever `on_bytes` raises.
    """
    _remove_leftovers(download.model)
    arrived = _Arrived(on_bytes)
    for file in download.missing:
        try:
            hf_hub_download(
                download.model, file.name, revision=download.commit, tqdm_class=arrived.progress_bar()
            )
        except Exception as error:
            if error is arrived.ended_by:
                raise
            raise LoadError(_explain_cut(download, arrived.count, error)) from error
    folder = _snapshot(download.model, download.commit)
    if folder is None:
        raise LoadError(
            f"{download.model} vanished from {constants.HF_HUB_CACHE} while it was loaded. Load again."
        )
    return folder


def downloaded_folder(model: str, revision: str | None = None) -> str | None:
    """Where the cache has all of a model's weights, found without the network; None where it has not."""
    if Path(model).is_dir():
        return None
    folder = _snapshot(model, revision or constants.DEFAULT_REVISION)
    if folder is None:
        return None
    index = Path(folder, INDEX)
    if Path(folder, WEIGHTS).exists():
        return folder
    if index.exists() and all(Path(folder, name).exists() for name in _shards(index)):
        return folder
    return None


def _weight_files(model: str, commit: str, names: Sequence[str]) -> list[str]:
    """The safetensors that make up the model, with their index, and no second copy in another layout."""
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        index = hf_hub_download(model, INDEX, revision=commit)
        return [INDEX, *_shards(Path(index))]
    raise LoadError(
        f"{model} has no safetensors weights ({WEIGHTS}), and only those are loaded. Choose a repository "
        "that has them, for a quantized copy the original one."
    )


def _shards(index: Path) -> list[str]:
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _is_here(model: str, name: str, revision: str) -> bool:
    return isinstance(try_to_load_from_cache(model, name, revision=revision), str)


def _snapshot(model: str, revision: str) -> str | None:
    config = try_to_load_from_cache(model, "config.json", revision=revision)
    return str(Path(config).parent) if isinstance(config, str) else None


def _remove_leftovers(model: str) -> None:
    """Deletes what a killed process left of its downloads; what another one still writes is locked."""
    repository = repo_folder_name(repo_id=model, repo_type="model")
    cache = Path(constants.HF_HUB_CACHE)
    for part in cache.joinpath(repository, "blobs").glob("*.incomplete"):
        lock = cache / ".locks" / repository / f"{part.name.split('.')[0]}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                part.unlink(missing_ok=True)
        except (Timeout, OSError, NotImplementedError):
            continue


class _Arrived:
    """Counts the bytes of several files and reports them a few times a second."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self.count = 0
        self.ended_by: Exception | None = None
        self._on_bytes = on_bytes
        self._reported = 0.0

    def add(self, size: int) -> None:
        self.count += size
        now = time.monotonic()
        if now - self._reported >= _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            try:
                self._on_bytes(self.count)
            except Exception as error:
                self.ended_by = error
                raise

    def progress_bar(self) -> type[tqdm]:
        """What the Hub client takes for a progress bar: it shows nothing and counts here."""
        arrived = self

        class Bar(tqdm):
            def __init__(self, *arguments, **options) -> None:
                super().__init__(*arguments, **options | {"disable": True})

            def update(self, n: float | None = 1) -> None:
                arrived.add(int(n or 0))

            def update_transfer(self, n: float | None = 1) -> None:
                """Bytes off the network, of which `update` hears again once they are written."""

            def set_transfer_postfix_str(self, *arguments, **options) -> None:
                """Speed is not shown."""

        return Bar


def _explain(model: str, revision: str | None, error: Exception) -> str:
    known = explain_hub_error(model, revision, error)
    return (
        known or f"{model} could not be downloaded ({type(error).__name__}: {first_line(error)}). Try again."
    )


def _explain_cut(download: Download, arrived: int, error: Exception) -> str:
    """A connection that broke off half-way has more to say than one that was never there."""
    if cut_off(error) and arrived:
        return (
            f"The download of {download.model} broke off after {gigabytes(arrived)} of "
            f"{gigabytes(download.size_bytes)} ({first_line(error)}). Load again to go on: finished files "
            "are kept."
        )
    return _explain(download.model, download.commit, error)
