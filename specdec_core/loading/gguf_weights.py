"""Weights in a GGUF file, dequantized and in transformers' order, and what they say of the configuration.

Knows nothing of devices or pairs.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..errors import LoadError
from ..hub.gguf_config import ROPE_FACTORS, Architecture, architecture_of
from ..hub.gguf_files import header_of
from ..hub.gguf_header import GgufHeader, GgufTensor, HeaderError

_LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Values of all published Llama 3 models beside the factor. GGUF has the result of them."""

_ROW_OF_BLOCKS = 256
"""Blocks in a row of what gguf dequantizes: it computes 16 rows at once, which takes three times as long with
18 blocks in each. A block's values depend on no other one.
"""


class GgufWeights:
    """The weights of the file at `path`. Raises LoadError if it is damaged."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._header: GgufHeader = header_of(path)
            self._data = np.memmap(path, mode="r", dtype=np.uint8)
        except (HeaderError, OSError, ValueError) as error:
            raise LoadError(f"{path} cannot be read: {error}. Download or copy it again.") from error
        self._architecture: Architecture = architecture_of(self._header)

    def state(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        """Return the weights in float32 by transformers' names. Raises LoadError if the file is damaged."""
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}

        def read(name: str) -> tuple[str, Tensor]:
            stored = self._architecture.weight_name(name) or name
            weight = self._tensor(name)
            if self._architecture.interleaved and (count := heads.get(stored.split(".")[-2])):
                weight = weight.unflatten(0, (count, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()
            if self._architecture.norms_of_one and stored.endswith("norm.weight"):
                weight = weight - 1
            return stored, weight

        names = [name for name in self._header.tensors if name != ROPE_FACTORS]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy lets go of the GIL
            return dict(pool.map(read, names))

    def add_rope_factors(self, config: PreTrainedConfig) -> None:
        """Give the configuration of a Llama 3 the scaling of its rotation, which no metadata name.

        Raises LoadError for factors of another kind.
        """
        if ROPE_FACTORS not in self._header.tensors:
            return
        factors = self._tensor(ROPE_FACTORS)
        theta = config.rope_parameters["rope_theta"]
        parameters: dict[str, Any] = {"rope_type": "llama3", "rope_theta": theta, **_LLAMA3_ROPE}
        parameters["factor"] = float(factors.max())
        plain = 1 / theta ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        config.rope_parameters = parameters
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        if not torch.allclose(plain / factors, scaled, rtol=1e-4):
            raise LoadError(
                f"{self.path} scales the rotation by {ROPE_FACTORS} in another way than Llama 3 does. Choose "
                "the safetensors of the model."
            )

    def _tensor(self, name: str) -> Tensor:
        stored = self._header.tensors[name]
        try:
            kind = GGMLQuantizationType(stored.type)
            values, size = GGML_QUANT_SIZES[kind]
            if stored.shape[-1] % values:
                raise ValueError(f"its rows are not whole blocks of {values}")
            blocks = stored.count // values
            row = max(math.gcd(blocks, _ROW_OF_BLOCKS), stored.shape[-1] // values)
            rows = self._bytes(stored, blocks * size).reshape(-1, row * size)
            weight = dequantize(rows, kind).reshape(stored.shape)
        except (NotImplementedError, ValueError) as error:
            raise LoadError(
                f"{name} in {self.path} cannot be read ({error}). Download or copy it again, or choose "
                "another quantization of the model."
            ) from error
        return torch.from_numpy(np.require(weight, requirements=["C", "W", "O"]))

    def _bytes(self, stored: GgufTensor, count: int) -> np.ndarray:
        data = self._data[stored.offset : stored.offset + count]
        if len(data) < count:
            raise ValueError("the file ends before it")
        return data
