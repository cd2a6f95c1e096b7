"""LoRA adapters in local folders: their base model, validation, and merging into its weights.

Reads adapter_config.json and the header of the weights; only `merge` needs peft and a loaded model.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ..errors import LoadError, PairUncheckableError
from .file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, WEIGHTS, WEIGHTS_INDEX
from .gguf_files import is_gguf

_MERGE_FIRST = "Merge it beforehand (peft's merge_and_unload, then save_pretrained) and give that folder."


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter in `folder`, trained on `base` (a Hub id or folder) at `revision`."""

    folder: str
    base: str
    revision: str | None = None

    def require_width(self, width: int) -> None:
        """Raise PairUncheckableError if the adapter has embeddings for more or fewer than `width` tokens."""
        for name, rows in self.embedding_rows():
            if rows != width:
                raise PairUncheckableError(
                    f"The adapter {self.folder} changes the vocabulary of {self.base} from {width:,} to "
                    f"{rows:,} ({name}), which the base's configuration knows nothing of. {_MERGE_FIRST}"
                )

    def embedding_rows(self) -> list[tuple[str, int]]:
        """Return names and row counts of full embedding and output matrices. Raises SafetensorError."""
        with safe_open(Path(self.folder, ADAPTER_WEIGHTS), framework="pt") as tensors:
            return [
                (name, tensors.get_slice(name).get_shape()[0])
                for name in tensors.keys()  # noqa: SIM118 (no dict)
                if "lora_" not in name and any(part in name for part in ("embed", "wte", "lm_head"))
            ]


def read_adapter(model: str) -> Adapter | None:
    """Read the adapter in a folder; None if `model` is a Hub id or a folder without one.

    Raises PairUncheckableError for an adapter that cannot be merged: not LoRA, no base, damaged files.
    """
    folder = Path(model)
    if not os.path.isfile(folder / ADAPTER_CONFIG):  # False for a name too long for a path
        return None
    if present := [name for name in (WEIGHTS, WEIGHTS_INDEX) if (folder / name).exists()]:
        raise PairUncheckableError(
            f"{model} holds an adapter ({ADAPTER_CONFIG}) and a whole model ({present[0]}). Move one of them "
            "away, since it is not clear which is meant."
        )
    try:
        values = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        kind, base = values.get("peft_type"), values.get("base_model_name_or_path")
        revision = values.get("revision")
    except (OSError, ValueError, AttributeError) as error:
        raise PairUncheckableError(
            f"{model}: {ADAPTER_CONFIG} cannot be read ({error}). Copy it again."
        ) from error
    if kind != "LORA":
        raise PairUncheckableError(f"{model} is an adapter of type {kind}; only LORA is merged here.")
    if not base:
        raise PairUncheckableError(
            f"{model}: {ADAPTER_CONFIG} does not say which model the adapter is for "
            "(base_model_name_or_path). Put its Hub id or folder there."
        )
    if is_gguf(str(base)):
        raise PairUncheckableError(
            f"{model} is an adapter on a GGUF file, {base}. Put the folder or Hub id of that model's "
            f"safetensors into {ADAPTER_CONFIG}."
        )
    if (Path(base) / ADAPTER_CONFIG).is_file():
        raise PairUncheckableError(f"{model} is an adapter on another adapter, {base}. {_MERGE_FIRST}")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise PairUncheckableError(
            f"{model} has no {ADAPTER_WEIGHTS}, and only safetensors are loaded. Convert it."
        )
    adapter = Adapter(model, base, revision)
    try:
        adapter.embedding_rows()
    except SafetensorError as error:
        raise PairUncheckableError(
            f"{model}: {ADAPTER_WEIGHTS} is corrupt ({error}). Copy it again."
        ) from error
    return adapter


def require_mergeable(adapter: Adapter, quantization: str, split: bool) -> None:
    """Raise LoadError if the adapter cannot be merged: into quantized or `split` weights, or without peft."""
    if quantization != "none" or split:
        how = "quantized" if quantization != "none" else "split over several devices"
        raise LoadError(
            f"The adapter {adapter.folder} cannot be merged into weights that are {how}. {_MERGE_FIRST}"
        )
    if importlib.util.find_spec("peft") is None:
        raise LoadError(f"{adapter.folder} is an adapter, and reading those takes peft: pip install peft.")


def merge(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """Return the base with the adapter added to its weights. Raises LoadError if weights do not match."""
    from peft import PeftConfig, PeftModel

    adapted = PeftModel(model, PeftConfig.from_pretrained(adapter.folder))
    loaded = adapted.load_adapter(adapter.folder, "default", torch_device=str(model.device))
    if strays := [*loaded.missing_keys, *loaded.unexpected_keys]:
        raise LoadError(
            f"The adapter {adapter.folder} does not fit {adapter.base}: {len(strays)} of its weights have no "
            f"place there or are not in its file, the first being {strays[0]}. Check base_model_name_or_path."
        )
    return adapted.merge_and_unload(safe_merge=True)
