"""The small pair on the loopback Hub: loading, refusals, files in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

import specdec_core as sd
from specdec_core.hub.download import downloaded_folder
from tests.support.hub_server import COMMIT

TARGET, DRAFTER = "owner/target", "owner/drafter"


def load(**changed) -> sd.Engine:
    """Load the pair with changed arguments of Engine.load."""
    return sd.Engine.load(**{"target": TARGET, "drafter": DRAFTER, "device": "cpu", **changed})


def refusal(**changed) -> str:
    """Return the message of the error that loading raises."""
    with pytest.raises((sd.LoadError, sd.PairUncheckableError)) as error:
        load(**changed)
    return str(error.value)


def parts() -> list[int]:
    """Return the sizes of the unfinished files in the cache."""
    cache = Path(constants.HF_HUB_CACHE)
    return [path.stat().st_size for kind in ("*.part", "*.incomplete") for path in cache.rglob(kind)]


def downloaded(model: str) -> bytes:
    """Return the weights in the cache."""
    folder = downloaded_folder(model, COMMIT)
    assert folder is not None
    return Path(folder, "model.safetensors").read_bytes()
