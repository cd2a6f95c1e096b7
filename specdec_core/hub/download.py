"""Download of a model's weights into the Hub's cache: file list, disk space, progress, error messages.

Fetches safetensors and the two configuration files beside them, or one GGUF file. An interrupted download is
resumed. Knows nothing of loading.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from tqdm.auto import tqdm

from ..errors import LoadError
from ..units import gigabytes
from .errors import cut_off, explain_hub_error, first_line, unreachable
from .file_names import CONFIG, GENERATION_CONFIG, WEIGHTS, WEIGHTS_INDEX
from .reach import hub_is_reachable
from .resumable import (
    RemoteFile,
    ResumableFile,
    arrived_bytes,
    fetch_blob,
    remote_file,
    remove_leftovers,
)
from .weight_files import shard_names

_DISK_RESERVE_BYTES = 100_000_000
REPORT_INTERVAL_S = 0.2
"""Least time between two progress reports of a download."""

OnBytes = Callable[[int], None]
"""Callback with the bytes of a download that have arrived so far."""


@dataclass(frozen=True, slots=True)
class Download:
    """The files of a Hub model, at one commit, that are missing from the cache.

    `file` is the one file that the model is in; None for a whole repository. `revision` is the one that was
    asked for.
    """

    model: str
    commit: str
    missing: tuple[RemoteFile, ...]
    file: str | None = None
    revision: str | None = None

    @property
    def size_bytes(self) -> int:
        """Total size of the missing files."""
        return sum(file.size_bytes for file in self.missing)

    @property
    def remaining_bytes(self) -> int:
        """`size_bytes` less the partial files of earlier downloads."""
        return sum(file.size_bytes - arrived_bytes(self.model, file) for file in self.missing)


def plan_download(model: str, revision: str | None = None, file: str | None = None) -> Download | None:
    """Return the files to fetch before `model` can be loaded; with `file` that one alone.

    None for a folder, and where the Hub is out of reach while the cache is complete. Asks the Hub for names
    and sizes; downloads no weights. Raises LoadError.
    """
    if Path(model).is_dir():
        return None
    try:
        if not hub_is_reachable():
            raise ConnectionError(unreachable())
        info = HfApi(endpoint=constants.ENDPOINT).model_info(
            model, revision=revision, files_metadata=True, timeout=constants.DEFAULT_REQUEST_TIMEOUT
        )
        files = {
            file.rfilename: remote_file(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
        }
        commit = info.sha or revision or constants.DEFAULT_REVISION
        names = _weight_files(model, commit, files) if file is None else [_listed(model, file, files)]
    except LoadError:
        raise
    except Exception as error:
        if file is None and downloaded_folder(model, revision) is not None:
            return None
        raise LoadError(_explain(model, revision, error)) from error
    beside = (CONFIG, GENERATION_CONFIG) if file is None else ()
    needed = [*(name for name in beside if name in files), *names]
    missing = [files.get(name) or RemoteFile(name, 0) for name in needed if not _cached(model, name, commit)]
    return Download(model, commit, tuple(missing), file, revision)


def require_disk_space(downloads: Sequence[Download]) -> None:
    """Raise LoadError if the cache's disk has no room for the rest of all downloads."""
    needed = sum(download.remaining_bytes for download in downloads)
    if not needed:
        return
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in [cache, *cache.parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed + _DISK_RESERVE_BYTES > free:
        names = " and ".join(download.model for download in downloads if download.missing)
        raise LoadError(
            f"{names}: {gigabytes(needed)} are to be downloaded to {cache}, and {gigabytes(free)} are "
            "free there. Free space, or set HF_HOME to a folder on another disk."
        )


def fetch(download: Download, on_bytes: OnBytes) -> str:
    """Download the missing files. Return the folder with the model's files, or the model's one file.

    Raises LoadError. Exceptions of `on_bytes` end the download at once; partial files are kept.
    """
    remove_leftovers(download.model)
    reported = -math.inf
    with closing(_fetch_files(download)) as counts:
        for count in counts:
            now = time.monotonic()
            if now - reported >= REPORT_INTERVAL_S:
                reported = now
                on_bytes(count)
    if download.file is not None:
        _remember_commit(download)
    fetched = _cached(download.model, download.file or CONFIG, download.commit)
    if fetched is None:
        raise LoadError(
            f"{download.model} vanished from {constants.HF_HUB_CACHE} while it was loaded. Load again."
        )
    return str(fetched.parent if download.file is None else fetched)


def _remember_commit(download: Download) -> None:
    """Note the revision's commit in the cache, as the Hub's client does for a file by the revision's name.

    Other models' notes come with config.json, which the gate reads by that name.
    """
    if download.revision == download.commit:
        return
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=download.model, repo_type="model"))
    note = folder / "refs" / (download.revision or constants.DEFAULT_REVISION)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(download.commit)


def _fetch_files(download: Download) -> Generator[int, None, None]:
    """Download file by file, yielding the bytes of all files that have arrived."""
    completed = count = 0
    for file in download.missing:
        try:
            if isinstance(file, ResumableFile):
                for arrived in fetch_blob(download.model, download.commit, file):
                    count = completed + arrived
                    yield count
            # Links a complete blob into the snapshot under the file's name, without a download.
            hf_hub_download(download.model, file.name, revision=download.commit, tqdm_class=_NoBar)
        except LoadError:
            raise
        except Exception as error:
            raise LoadError(_explain_interruption(download, count, error)) from error
        completed += file.size_bytes
        yield completed


def downloaded_folder(model: str, revision: str | None = None) -> str | None:
    """Return the cache's folder with all of a model's weights, or None if any is missing. Uses no network."""
    if Path(model).is_dir():
        return None
    config = _cached(model, CONFIG, revision or constants.DEFAULT_REVISION)
    if config is None:
        return None
    folder = config.parent
    index = folder / WEIGHTS_INDEX
    if (folder / WEIGHTS).exists():
        return str(folder)
    if index.exists() and all((folder / name).exists() for name in shard_names(index)):
        return str(folder)
    return None


def _weight_files(model: str, commit: str, names: Collection[str]) -> list[str]:
    """Return the names of the model's safetensors, either one file or an index with its shards."""
    if WEIGHTS in names:
        return [WEIGHTS]
    if WEIGHTS_INDEX in names:
        index = hf_hub_download(model, WEIGHTS_INDEX, revision=commit)
        return [WEIGHTS_INDEX, *shard_names(Path(index))]
    raise LoadError(
        f"{model} has no safetensors weights ({WEIGHTS}), and only those are loaded. Choose a repository "
        "that has them, for a quantized copy the original one."
    )


def _listed(model: str, file: str, files: Collection[str]) -> str:
    """Return the file's name. Raises LoadError if the repository has no such file."""
    if file in files:
        return file
    others = sorted(name for name in files if Path(name).suffix == Path(file).suffix)
    listed = f"Choose one of {', '.join(others)}." if others else "Check its name."
    raise LoadError(f"{model} has no file {file}. {listed}")


def _cached(model: str, name: str, revision: str) -> Path | None:
    path = try_to_load_from_cache(model, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


class _NoBar(tqdm):
    """A disabled progress bar for the Hub's client."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options | {"disable": True})


def _explain(model: str, revision: str | None, error: Exception) -> str:
    known = explain_hub_error(model, revision, error)
    return (
        known or f"{model} could not be downloaded ({type(error).__name__}: {first_line(error)}). Try again."
    )


def _explain_interruption(download: Download, arrived: int, error: Exception) -> str:
    """Return the message for a download that broke off after `arrived` bytes, or never began."""
    if cut_off(error) and arrived:
        return (
            f"The download of {download.model} broke off after {gigabytes(arrived)} of "
            f"{gigabytes(download.size_bytes)} ({first_line(error)}). Load again to go on from there."
        )
    return _explain(download.model, download.commit, error)
