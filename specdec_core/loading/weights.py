"""Loading of one model's weights onto devices: precision, quantization, errors that say what to do.

Knows nothing of pairs; the gate's checks are done before.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ..errors import LoadError
from ..hub.adapters import Adapter, merge
from ..hub.errors import first_line, reason
from ..hub.gguf_files import GgufFile, is_gguf, read_gguf
from ..hub.stored_quantization import StoredQuantization, remove_empty_quantization
from ..hub.weight_files import stored_tensors
from ..onnx_runtime.packages import obstacle
from ..out_of_memory import out_of_memory
from ..runners.serving import attention_for
from ..runners.shared_embedding import shared_embedding
from ..runners.skeleton import build_skeleton
from ..settings import Quantization
from .completeness import require_complete
from .devices import dtype_for
from .from_state import model_of_state
from .gguf_weights import GgufWeights
from .quantization import (
    allow_all_shapes,
    bitsandbytes_config,
    require_loadable,
    require_quantized,
    stored_config,
)
from .scales import require_scales
from .shared_drafter import read_shared_drafter


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's origin (Hub id or local folder) and the quantization to load it in.

    If `model` is the folder of an `adapter`, configuration and most weights come from the adapter's base.
    `stored` is the quantization that the weights are stored in, and `gguf` the file that they are in, once
    these were read. An `optional` quantization is left out where it cannot be computed. A GGUF file whose
    quantization is `undecided` keeps its own on a CPU.
    """

    model: str
    revision: str | None = None
    quantization: Quantization = "none"
    adapter: Adapter | None = None
    stored: StoredQuantization | None = None
    optional: bool = False
    undecided: bool = False
    gguf: GgufFile | None = None

    @property
    def base(self) -> str:
        """Hub id or folder of the configuration and, unless they are in a GGUF file, the weights."""
        if self.gguf is not None:
            return self.gguf.folder
        return self.adapter.base if self.adapter else self.model

    @property
    def base_revision(self) -> str | None:
        """Revision of `base`; None for the default one."""
        if self.gguf is not None:
            return None
        return self.adapter.revision if self.adapter else self.revision

    @property
    def quantization_in_memory(self) -> Quantization:
        """The quantization that takes about as much memory as the loaded weights."""
        return self.stored.in_memory if self.stored else self.quantization

    @property
    def quantization_name(self) -> str:
        """The quantization for people, the one that the weights are stored in included."""
        if self.gguf is not None and self.quantization == "none":
            return f"{self.gguf.format}, dequantized"
        return str(self.stored) if self.stored else self.quantization


@dataclass(frozen=True, slots=True)
class Split:
    """A model over several devices: `devices` maps modules to devices or "disk".

    `last` is the device that computes the last layer.
    """

    devices: Mapping[str, str]
    last: torch.device

    @property
    def device_names(self) -> str:
        """The devices in a form for people: "cuda:0, cuda:1 and disk"."""
        *others, last = dict.fromkeys(self.devices.values())
        return f"{', '.join(others)} and {last}" if others else last

    @property
    def computing(self) -> list[torch.device]:
        """The devices that compute. Layers in memory or on disk are computed on a GPU if there is one."""
        named = [torch.device(name) for name in dict.fromkeys(self.devices.values()) if name != "disk"]
        return [device for device in named if device.type == "cuda"] or [self.last]


def with_gguf_file(source: ModelSource) -> ModelSource:
    """Return the source with its GGUF file, if it is one. On the Hub it stays at one commit from then on.

    Downloads the header alone. Raises PairUncheckableError for a file that cannot be read.
    """
    if not is_gguf(source.model):
        return source
    file = read_gguf(source.model, source.revision)
    revision = file.remote.pinned_revision if file.remote else source.revision
    return replace(source, gguf=file, revision=revision)


def with_stored_quantization(source: ModelSource, device: torch.device) -> ModelSource:
    """Return the source with the quantization that its weights are stored in.

    Downloads no weights. Raises LoadError if the weights cannot be loaded onto `device` in the quantization
    that `source` asks for.
    """
    bits = source.gguf.bits if source.gguf else 32
    if bits != 32 and source.undecided and device.type == "cpu" and obstacle() is None:
        source = replace(source, quantization="int4" if bits == 4 else "int8", optional=True)
    stored = require_loadable(source.model, _read_config(source), source.quantization, device)
    return replace(source, stored=stored)


def skeleton(source: ModelSource, device: torch.device) -> PreTrainedModel:
    """Build the model without weights, on the meta device, from its configuration alone.

    Raises LoadError if the configuration describes no model that transformers can build.
    """
    try:
        config = _read_config(source)
        return build_skeleton(config, dtype_for(config, device))
    except Exception as error:  # an unchecked configuration may raise anything
        raise LoadError(
            f"{source.model}: its configuration describes no model that can be made here "
            f"({type(error).__name__}: {reason(error)}). Choose another model or version of transformers."
        ) from error


def load_model(
    source: ModelSource,
    device: torch.device,
    folder: str | None = None,
    split: Split | None = None,
    target: PreTrainedModel | None = None,
) -> PreTrainedModel:
    """Load the model in evaluation mode onto `device`, in the dtype of `dtype_for` unless quantized.

    With `split` it is loaded over several devices, with an offload folder that is deleted with the model.
    `folder` has the files of a model on the Hub, or is its GGUF file; None if `source` is local. Only
    safetensors and GGUF are read; no remote code is run, no network used. A drafter may read the embedding of
    `target`. Raises LoadError if weights are missing, corrupt or do not fit; then nothing of the model stays
    in memory.
    """
    try:
        if split is not None:
            return _read_split(source, device, folder or source.base, split)
        model = _read(source, device, folder or source.base, target=target)
        return merge(model, source.adapter).eval() if source.adapter else model
    except LoadError as error:
        failure = str(error)
    except SafetensorError as error:
        failure = f"The weights of {source.model} are corrupt ({error}). Download or copy the files again."
    except Exception as error:
        logging.getLogger(__name__).debug("loading %s failed", source.model, exc_info=error)
        failure = _explain(source, device, error)
    # Raised outside the except clauses: as its context, the first error would keep the weights in its frames.
    raise LoadError(failure)


def _read_split(source: ModelSource, device: torch.device, folder: str, split: Split) -> PreTrainedModel:
    offload_folder = tempfile.mkdtemp(prefix="specdec-offload-")
    try:
        model = _read(source, device, folder, split, offload_folder)
    except BaseException:
        shutil.rmtree(offload_folder, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, offload_folder, ignore_errors=True)
    return model


def _read(
    source: ModelSource,
    device: torch.device,
    folder: str,
    split: Split | None = None,
    offload_folder: str | None = None,
    target: PreTrainedModel | None = None,
) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(
        folder if source.gguf is None else source.base, local_files_only=True, trust_remote_code=False
    )
    stored = require_loadable(source.model, config, source.quantization, device)
    dtype = dtype_for(config, *(split.computing if split else [device]))
    options: dict[str, Any] = {
        "config": config,
        "dtype": dtype,
        "attn_implementation": attention_for(config),
        "device_map": dict(split.devices) if split else {"": device},
        "offload_folder": offload_folder,
        "quantization_config": (
            bitsandbytes_config(source.quantization, dtype, device) if stored is None else None
        ),
        "ignore_mismatched_sizes": True,  # refused below, by name
        "output_loading_info": True,
    }
    if source.gguf is not None:
        weights = GgufWeights(folder if source.gguf.path is None else source.gguf.path)
        weights.add_rope_factors(config)
        state = weights.state(config)
        if split is not None and config.tie_word_embeddings:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]  # accelerate offloads both
        model, info = model_of_state(state, options)
    elif target is not None and (shared := shared_embedding(config)) is not None:
        model, info = read_shared_drafter(source.model, Path(folder), shared, target, options)
    else:
        tensors = stored_tensors(Path(folder), getattr(config, "transformers_weights", None))
        require_scales(source.model, tensors, stored)
        if stored is not None:
            config.quantization_config = stored_config(stored, dtype, device)
        else:
            remove_empty_quantization(config)
        # transformers' annotation leaves out the tuple that output_loading_info=True returns.
        model, info = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
        )
    require_complete(source.model, info, config, stored)
    if stored is not None:
        require_quantized(source.model, model)
    if stored is not None and split is None:
        if stored.dequantized and dtype != torch.bfloat16:
            _cast_bfloat16(model, dtype)
        if device.type == "cpu":
            allow_all_shapes(model)
    return model.eval()


def _cast_bfloat16(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast what is still in bfloat16: transformers 5.17 leaves experts stored in mxfp4 so."""
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.dtype == torch.bfloat16:
            tensor.data = tensor.data.to(dtype)


def _read_config(source: ModelSource) -> PreTrainedConfig:
    """Read the configuration from the folder, or from the cache, where the gate's check has put it.

    Asking the Hub again would have no time limit.
    """
    return AutoConfig.from_pretrained(
        source.base, revision=source.base_revision, trust_remote_code=False, local_files_only=True
    )


def _explain(source: ModelSource, device: torch.device, error: Exception) -> str:
    if out_of_memory(error):
        smaller = "nf4 quantization, " if device.type == "cuda" and source.quantization != "nf4" else ""
        return (
            f"{source.model} does not fit into the memory of {device}. Choose {smaller}a smaller pair, or "
            f"free memory. ({first_line(error)})"
        )
    return f"{source.model} could not be loaded: {first_line(error)}"
