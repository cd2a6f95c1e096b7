"""A model's weights from the Hub into its cache: which files, room for them, progress, and what went wrong.

Fetches safetensors and the two configuration files beside them, nothing else. Knows nothing of what is done
with the files. An interrupted download is taken up where it stopped.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from tqdm.auto import tqdm

from ..errors import LoadError
from ..units import gigabytes
from .errors import cut_off, explain_hub_error, first_line
from .resumable import RemoteFile, arrived_bytes, fetch_blob, remove_leftovers

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_CONFIGURATION = ("config.json", "generation_config.json")
_ROOM_TO_SPARE_BYTES = 100_000_000
_SECONDS_BETWEEN_REPORTS = 0.2

OnBytes = Callable[[int], None]
"""Called with the bytes of a download that have arrived so far."""


@dataclass(frozen=True, slots=True)
class Download:
    """What of a Hub model is not here yet, at one commit."""

    model: str
    commit: str
    missing: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.missing)

    @property
    def remaining_bytes(self) -> int:
        """Without what an earlier download left of its last file."""
        return sum(file.size_bytes - arrived_bytes(self.model, file) for file in self.missing)


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
        files = {
            file.rfilename: RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
        }
        names = _weight_files(model, info.sha, files)
    except LoadError:
        raise
    except Exception as error:
        if downloaded_folder(model, revision) is not None:
            return None
        raise LoadError(_explain(model, revision, error)) from error
    wanted = [*(name for name in _CONFIGURATION if name in files), *names]
    missing = [
        files.get(name) or RemoteFile(name, 0) for name in wanted if not _is_here(model, name, info.sha)
    ]
    return Download(model, info.sha, tuple(missing))


def require_disk_space(downloads: Sequence[Download]) -> None:
    """Raises LoadError where the cache's disk has no room for all of them."""
    needed = sum(download.remaining_bytes for download in downloads)
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

    Raises LoadError, and at once whatever `on_bytes` raises; what has arrived by then is kept.
    """
    remove_leftovers(download.model)
    reported = -math.inf
    with closing(_arriving(download)) as counts:
        for count in counts:
            now = time.monotonic()
            if now - reported >= _SECONDS_BETWEEN_REPORTS:
                reported = now
                on_bytes(count)
    folder = _snapshot(download.model, download.commit)
    if folder is None:
        raise LoadError(
            f"{download.model} vanished from {constants.HF_HUB_CACHE} while it was loaded. Load again."
        )
    return folder


def _arriving(download: Download) -> Iterator[int]:
    """Downloads file by file, yielding how many bytes of all are here."""
    here = count = 0
    for file in download.missing:
        try:
            if file.resumable:
                for held in fetch_blob(download.model, download.commit, file):
                    count = here + held
                    yield count
            # Finds a blob that is complete, and gives it its name.
            hf_hub_download(download.model, file.name, revision=download.commit, tqdm_class=_NoBar)
        except LoadError:
            raise
        except Exception as error:
            raise LoadError(_explain_cut(download, count, error)) from error
        here += file.size_bytes
        yield here


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


def _weight_files(model: str, commit: str, names: Collection[str]) -> list[str]:
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


class _NoBar(tqdm):
    """What the Hub's client takes for a progress bar; it shows nothing."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options | {"disable": True})


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
            f"{gigabytes(download.size_bytes)} ({first_line(error)}). Load again to go on from there."
        )
    return _explain(download.model, download.commit, error)
