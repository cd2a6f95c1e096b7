"""Resumable download of one large file of a Hub repository into the Hub's cache.

The Hub's own client starts a file over after a broken connection, a cancelled load or a killed process. The
finished file is put where that client looks before it downloads. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
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
_RETRY_DELAY_S = 1.0
_LOCK_TIMEOUT_S = 0.2
_READ_BYTES = 2**24
_PART_EXPIRY_S = 14 * 24 * 3600


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a Hub repository at one commit."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ResumableFile(RemoteFile):
    """A large file (Git LFS) whose download can be resumed and verified by its sha256."""

    sha256: str


def remote_file(name: str, size_bytes: int, sha256: str | None = None) -> RemoteFile:
    """Return a ResumableFile if the Hub lists a sha256 and the file is within what HTTP downloads allow."""
    if sha256 is None or size_bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
        return RemoteFile(name, size_bytes)
    return ResumableFile(name, size_bytes, sha256)


def fetch_blob(model: str, commit: str, file: ResumableFile) -> Iterator[int]:
    """Download one file, yielding the bytes present so far: after every chunk, and while another process
    that downloads the same file holds the lock.

    Closing the iterator early keeps the partial file. Raises LoadError if size or sha256 of the whole differ
    from the Hub's, and the connection's own error after several failures in a row.
    """
    blob = _blobs(model) / file.sha256
    part = _part(model, file)
    part.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_lock(model, file.sha256))
                break
            except Timeout:
                yield arrived_bytes(model, file)
        if blob.exists():
            return
        with part.open("a+b") as target:
            yield from _Transfer(model, commit, file, target).run()
        part.replace(blob)


def arrived_bytes(model: str, file: RemoteFile) -> int:
    """Return the size in bytes of an unfinished download; 0 for a file that cannot be resumed."""
    if not isinstance(file, ResumableFile):
        return 0
    try:
        return min(_part(model, file).stat().st_size, file.size_bytes)
    except OSError:
        return 0


def remove_leftovers(model: str) -> None:
    """Delete unfinished downloads of the Hub's client, and ours that are older than two weeks.

    Files that another process still writes are locked, and stay.
    """
    now = time.time()
    for part in [*_blobs(model).glob("*.incomplete"), *_blobs(model).glob("*.part")]:
        try:
            if part.suffix == ".part" and now - part.stat().st_mtime < _PART_EXPIRY_S:
                continue
            with _lock(model, part.name.split(".")[0]):
                part.unlink(missing_ok=True)
        except (Timeout, OSError):
            continue


class _Transfer:
    """The rest of a file, appended to the partial file `target`, with its sha256 computed on the way."""

    def __init__(self, model: str, commit: str, file: ResumableFile, target: BinaryIO) -> None:
        self._url = hf_hub_url(model, file.name, revision=commit, endpoint=constants.ENDPOINT)
        self._model = model
        self._file = file
        self._target = target
        self._received = 0
        self._sha256 = hashlib.sha256()

    def run(self) -> Iterator[int]:
        """Yield the bytes present after every chunk. Raises LoadError if the whole is damaged."""
        yield from self._read_part()
        resumed = self._received > 0
        yield from self._fetch_rest()
        if resumed and not self._is_valid():
            self._restart()
            yield from self._fetch_rest()
        if not self._is_valid():
            self._restart()
            raise LoadError(
                f"{self._file.name} of {self._model} arrived damaged: it is not what the Hub says it is. "
                "Load again to download it."
            )

    def _is_valid(self) -> bool:
        return self._received == self._file.size_bytes and self._sha256.hexdigest() == self._file.sha256

    def _fetch_rest(self) -> Iterator[int]:
        attempts = _ATTEMPTS
        while self._received < self._file.size_bytes:
            before = self._received
            try:
                yield from self._request()
            except Exception as error:
                attempts = _ATTEMPTS if self._received > before else attempts - 1
                if not attempts or not _is_transient(error):
                    raise
                yield self._received
                time.sleep(_RETRY_DELAY_S)

    def _read_part(self) -> Iterator[int]:
        self._target.seek(0)
        while chunk := self._target.read(_READ_BYTES):
            self._sha256.update(chunk)
            self._received += len(chunk)
            yield self._received
        if self._received > self._file.size_bytes:
            self._restart()

    def _request(self) -> Iterator[int]:
        # Byte ranges refer to the uncompressed file.
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if self._received:
            headers["Range"] = f"bytes={self._received}-"
        with get_session().stream(
            "GET", self._url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            hf_raise_for_status(response)
            if self._received and response.status_code != 206:
                self._restart()
            for chunk in response.iter_bytes():
                self._target.write(chunk)
                self._target.flush()
                self._sha256.update(chunk)
                self._received += len(chunk)
                yield self._received

    def _restart(self) -> None:
        self._target.truncate(0)
        self._received = 0
        self._sha256 = hashlib.sha256()


def _is_transient(error: Exception) -> bool:
    """Return True if the same request may succeed later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return cut_off(error)


def _blobs(model: str) -> Path:
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model, repo_type="model"), "blobs")


def _part(model: str, file: ResumableFile) -> Path:
    return _blobs(model) / f"{file.sha256}.part"


def _lock(model: str, name: str) -> AbstractContextManager[object]:
    """Return the lock that the Hub's client takes for the same file; entering it raises Timeout if taken."""
    folder = Path(constants.HF_HUB_CACHE, ".locks", repo_folder_name(repo_id=model, repo_type="model"))
    folder.mkdir(parents=True, exist_ok=True)
    return WeakFileLock(folder / f"{name}.lock", timeout=_LOCK_TIMEOUT_S)
