"""LoRA adapters in local folders: whose weights they change, read from their own files.

Reads adapter_config.json and the header of the weights; `merge` alone needs peft and a loaded model.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ..errors import LoadError, PairUncheckableError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WHOLE = ("model.safetensors", "model.safetensors.index.json")
_MERGE_FIRST = "Merge it beforehand (peft's merge_and_unload, then save_pretrained) and give that folder."


@dataclass(frozen=True, slots=True)
class Adapter:
    """`base` is the Hub id or folder of the model that it was trained on, at `revision`."""

    folder: str
    base: str
    revision: str | None = None

    def require_width(self, width: int) -> None:
        """Raises PairUncheckableError where it brings embeddings for another number of tokens."""
        for name, rows in self._embedding_rows():
            if rows != width:
                raise PairUncheckableError(
                    f"The adapter {self.folder} changes the vocabulary of {self.base} from {width:,} to "
                    f"{rows:,} ({name}), which the base's configuration knows nothing of. {_MERGE_FIRST}"
                )

    def _embedding_rows(self) -> list[tuple[str, int]]:
        with safe_open(Path(self.folder, WEIGHTS), framework="pt") as tensors:
            return [
                (name, tensors.get_slice(name).get_shape()[0])
                for name in tensors.keys()  # noqa: SIM118 (no dict)
                if "lora_" not in name and any(part in name for part in ("embed", "wte", "lm_head"))
            ]


def read_adapter(model: str) -> Adapter | None:
    """The adapter in a folder; None where there is none. Raises PairUncheckableError for one of no use."""
    folder = Path(model)
    if not (folder / CONFIG).is_file():
        return None
    if present := [name for name in _WHOLE if (folder / name).exists()]:
        raise PairUncheckableError(
            f"{model} holds an adapter ({CONFIG}) and a whole model ({present[0]}). Move one of them away, "
            "since it is not clear which is meant."
        )
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, base = values.get("peft_type"), values.get("base_model_name_or_path")
        revision = values.get("revision")
    except (OSError, ValueError, AttributeError) as error:
        raise PairUncheckableError(f"{model}: {CONFIG} cannot be read ({error}). Copy it again.") from error
    if kind != "LORA":
        raise PairUncheckableError(f"{model} is an adapter of type {kind}; only LORA is merged here.")
    if not base:
        raise PairUncheckableError(
            f"{model}: {CONFIG} does not say which model the adapter is for (base_model_name_or_path). "
            "Put its Hub id or folder there."
        )
    if (Path(base) / CONFIG).is_file():
        raise PairUncheckableError(f"{model} is an adapter on another adapter, {base}. {_MERGE_FIRST}")
    if not (folder / WEIGHTS).is_file():
        raise PairUncheckableError(f"{model} has no {WEIGHTS}, and only safetensors are loaded. Convert it.")
    adapter = Adapter(model, base, revision)
    try:
        adapter._embedding_rows()
    except SafetensorError as error:
        raise PairUncheckableError(f"{model}: {WEIGHTS} is corrupt ({error}). Copy it again.") from error
    return adapter


def require_mergeable(adapter: Adapter, quantization: str, split: bool) -> None:
    """Raises LoadError where the adapter cannot be merged into weights that are held like this."""
    if quantization != "none" or split:
        how = "quantized" if quantization != "none" else "split over several devices"
        raise LoadError(
            f"The adapter {adapter.folder} cannot be merged into weights that are {how}. {_MERGE_FIRST}"
        )
    if importlib.util.find_spec("peft") is None:
        raise LoadError(f"{adapter.folder} is an adapter, and reading those takes peft: pip install peft.")


def merge(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """The base with the adapter added to its weights. Raises LoadError where they do not belong together."""
    from peft import PeftConfig, PeftModel

    adapted = PeftModel(model, PeftConfig.from_pretrained(adapter.folder))
    found = adapted.load_adapter(adapter.folder, "default", torch_device=str(model.device))
    if strays := [*found.missing_keys, *found.unexpected_keys]:
        raise LoadError(
            f"The adapter {adapter.folder} does not fit {adapter.base}: {len(strays)} of its weights have no "
            f"place there or are not in its file, the first being {strays[0]}. Check base_model_name_or_path."
        )
    return adapted.merge_and_unload(safe_merge=True)
