"""Headers of GGUF files on the Hub: a file's first bytes are fetched, its weights are not.

Knows the Hub's addresses and cache; nothing of what a header says.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from ..errors import PairUncheckableError
from ..package_files import stays_inside
from .errors import first_cause, unreachable
from .gguf_header import GgufHeader, HeaderError, read_first_bytes
from .reach import hub_is_reachable
from .read_errors import explain_read_error

_HUB_FILE = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*):(?P<file>[^:]+\.gguf)")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the Hub. `commit` is the one that `revision` stands for; None until it was
    located, and where the Hub does not tell.
    """

    repository: str
    file: str
    revision: str | None = None
    commit: str | None = None

    @property
    def pinned_revision(self) -> str | None:
        """The commit where it is known, else the revision."""
        return self.commit or self.revision

    @property
    def url(self) -> str:
        """The address to fetch it from."""
        return hf_hub_url(
            self.repository, self.file, revision=self.pinned_revision, endpoint=constants.ENDPOINT
        )

    def explain(self, error: Exception) -> str:
        """Return the error and the next step in words."""
        if first_cause(error, RemoteEntryNotFoundError):
            return (
                f"{self.repository} has no file {self.file}. Choose one of those at "
                f"{constants.ENDPOINT}/{self.repository}/tree/{self.revision or constants.DEFAULT_REVISION}."
            )
        return explain_read_error(self.repository, self.revision, self.file, error)


def hub_file(name: str, revision: str | None = None) -> HubFile | None:
    """Return the file that a name of the form OWNER/NAME:FILE.gguf stands for; None for other names."""
    match = None if os.path.exists(name) else _HUB_FILE.fullmatch(name)
    if match is None or not stays_inside(match["file"]):
        return None
    return HubFile(match["repository"], match["file"], revision)


def locate(remote: HubFile, token: str | None = None) -> tuple[HubFile, Path | None]:
    """Return the file at a commit, that of the Hub where it can be asked, and its place in the Hub's cache.

    The place is None if it is not there. Raises PairUncheckableError if it is neither there nor on the Hub.
    """
    revision = remote.revision or constants.DEFAULT_REVISION
    found = try_to_load_from_cache(remote.repository, remote.file, revision=revision)
    if hub_is_reachable():
        try:
            metadata = get_hf_file_metadata(
                remote.url, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT, endpoint=constants.ENDPOINT
            )
        except Exception as error:
            if isinstance(found, str) and not _is_refusal(error):
                return _cached(remote, found)
            raise PairUncheckableError(remote.explain(error)) from error
        pinned = replace(remote, commit=metadata.commit_hash)
        revision = pinned.pinned_revision or revision
        found = try_to_load_from_cache(remote.repository, remote.file, revision=revision)
        return pinned, Path(found) if isinstance(found, str) else None
    if not isinstance(found, str):
        raise PairUncheckableError(
            f"{remote.repository}:{remote.file} is not downloaded, and {unreachable()}. Go online and try "
            "again, or give the path of a file."
        )
    return _cached(remote, found)


def _cached(remote: HubFile, found: str) -> tuple[HubFile, Path]:
    """The file and its place, snapshots/COMMIT/FILE."""
    path = Path(found)
    return replace(remote, commit=path.parents[remote.file.count("/")].name), path


def _is_refusal(error: Exception) -> bool:
    """Return True if the Hub denies the file or has none."""
    refused = first_cause(error, HfHubHTTPError)
    return isinstance(refused, HfHubHTTPError) and refused.response.status_code in (401, 403, 404)


def fetch_header(remote: HubFile, token: str | None = None) -> tuple[GgufHeader, bytes]:
    """Fetch as many of the first bytes as hold the header; return it with its bytes.

    Raises PairUncheckableError for the Hub's errors, HeaderError for what is no header.
    """
    try:
        if remote.commit is None or token is not None:
            return _fetched(remote.url, token)
        return _fetched_once(remote.url, None)
    except HeaderError:
        raise
    except Exception as error:
        raise PairUncheckableError(remote.explain(error)) from error


def _fetched(url: str, token: str | None) -> tuple[GgufHeader, bytes]:
    return read_first_bytes(lambda count: _first_bytes(url, token, count))


_fetched_once = lru_cache(maxsize=2)(_fetched)
"""A load asks for the header several times, and at one commit it stays the same. No token is kept."""


def forget_fetched() -> None:
    """Free what is kept of headers: a vocabulary takes up to a hundred megabytes."""
    _fetched_once.cache_clear()


def _first_bytes(url: str, token: str | None, count: int) -> bytes:
    headers = build_hf_headers(token=token) | {
        "Accept-Encoding": "identity",  # byte ranges refer to the uncompressed file
        "Range": f"bytes=0-{count - 1}",
    }
    data = bytearray()
    with get_session().stream(
        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) >= count:  # a server that knows no ranges sends all of it
                break
    return bytes(data[:count])
