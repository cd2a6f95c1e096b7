"""One large file of a Hub repository into the cache, so that what has arrived outlives whatever ends it.

The Hub's own client begins a file anew after a broken connection, a cancelled load or a killed process. Knows
nothing of models: it leaves the file where that client looks before it downloads.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import Timeout
from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status

from ..errors import LoadError
from .errors import cut_off

_ATTEMPTS = 6
_BETWEEN_ATTEMPTS_S = 1.0
_LOCK_S = 0.2
_READ_BYTES = 2**24
_FORGOTTEN_AFTER_S = 14 * 24 * 3600


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """`sha256` is None for small files, which are in the repository itself."""

    name: str
    size_bytes: int
    sha256: str | None = None

    @property
    def resumable(self) -> bool:
        return self.sha256 is not None and self.size_bytes <= constants.MAX_HTTP_DOWNLOAD_SIZE


def fetch_blob(model: str, commit: str, file: RemoteFile) -> Iterator[int]:
    """Downloads one resumable file, yielding how much of it is here: after every piece, and while it waits
    for another process that downloads the same.

    Leaving the iterator early keeps what has arrived. Raises LoadError where the whole is not what the Hub
    says it is, and what the connection raises once it has failed again and again.
    """
    blob = _blobs(model) / file.sha256
    part = _part(model, file)
    part.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(_lock(model, file.sha256))
                break
            except Timeout:
                yield arrived_bytes(model, file)
        if blob.exists():
            return
        with part.open("a+b") as target:
            yield from _Transfer(model, commit, file, target).run()
        part.replace(blob)


def arrived_bytes(model: str, file: RemoteFile) -> int:
    """How much of an unfinished file is here."""
    if not file.resumable:
        return 0
    try:
        return min(_part(model, file).stat().st_size, file.size_bytes)
    except OSError:
        return 0


def remove_leftovers(model: str) -> None:
    """Deletes what the Hub's client left of its downloads when it was killed, and parts that nobody came back
    for in two weeks; what another process still writes is locked.
    """
    now = time.time()
    for part in [*_blobs(model).glob("*.incomplete"), *_blobs(model).glob("*.part")]:
        try:
            if part.suffix == ".part" and now - part.stat().st_mtime < _FORGOTTEN_AFTER_S:
                continue
            with _lock(model, part.name.split(".")[0]):
                part.unlink(missing_ok=True)
        except (Timeout, OSError):
            continue


class _Transfer:
    """The rest of a file, appended to what `target` holds, its sha256 computed on the way."""

    def __init__(self, model: str, commit: str, file: RemoteFile, target: BinaryIO) -> None:
        self._url = hf_hub_url(model, file.name, revision=commit, endpoint=constants.ENDPOINT)
        self._model = model
        self._file = file
        self._target = target
        self._held = 0
        self._sum = hashlib.sha256()

    def run(self) -> Iterator[int]:
        yield from self._read_what_is_here()
        taken_up = self._held > 0
        yield from self._fetch_the_rest()
        if taken_up and not self._is_whole():
            self._begin_anew()
            yield from self._fetch_the_rest()
        if not self._is_whole():
            self._begin_anew()
            raise LoadError(
                f"{self._file.name} of {self._model} arrived damaged: it is not what the Hub says it is. "
                "Load again to download it."
            )

    def _is_whole(self) -> bool:
        return self._held == self._file.size_bytes and self._sum.hexdigest() == self._file.sha256

    def _fetch_the_rest(self) -> Iterator[int]:
        attempts = _ATTEMPTS
        while self._held < self._file.size_bytes:
            before = self._held
            try:
                yield from self._request()
            except Exception as error:
                attempts = _ATTEMPTS if self._held > before else attempts - 1
                if not attempts or not _may_pass(error):
                    raise
                yield self._held
                time.sleep(_BETWEEN_ATTEMPTS_S)

    def _read_what_is_here(self) -> Iterator[int]:
        self._target.seek(0)
        while piece := self._target.read(_READ_BYTES):
            self._sum.update(piece)
            self._held += len(piece)
            yield self._held
        if self._held > self._file.size_bytes:
            self._begin_anew()

    def _request(self) -> Iterator[int]:
        # A file that is compressed on its way has no bytes to go on from.
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if self._held:
            headers["Range"] = f"bytes={self._held}-"
        with get_session().stream(
            "GET", self._url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            hf_raise_for_status(response)
            if self._held and response.status_code != 206:
                self._begin_anew()
            for piece in response.iter_bytes():
                self._target.write(piece)
                self._target.flush()
                self._sum.update(piece)
                self._held += len(piece)
                yield self._held

    def _begin_anew(self) -> None:
        self._target.truncate(0)
        self._held = 0
        self._sum = hashlib.sha256()


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a second."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return cut_off(error)


def _blobs(model: str) -> Path:
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model, repo_type="model"), "blobs")


def _part(model: str, file: RemoteFile) -> Path:
    return _blobs(model) / f"{file.sha256}.part"


def _lock(model: str, name: str):
    """The lock that the Hub's client takes for the same file. Raises Timeout while another holds it."""
    folder = Path(constants.HF_HUB_CACHE, ".locks", repo_folder_name(repo_id=model, repo_type="model"))
    folder.mkdir(parents=True, exist_ok=True)
    return WeakFileLock(folder / f"{name}.lock", timeout=_LOCK_S)
