"""Names of the files of a model repository or folder, as transformers and peft write them."""

from pathlib import Path

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
MODELOPT_CONFIG = "hf_quant_config.json"
"""The quantization of a checkpoint of NVIDIA's ModelOpt, which older releases left out of config.json."""
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
"""The list of shards where the weights are in several files."""
DRAFTER_SHARDS = "drafter-*-of-*.safetensors"
"""Weights of a drafter that shares the target's embedding."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def gguf_of(folder: str | None) -> str | None:
    """Return the GGUF file in a model's folder, the same for llama.cpp; None if there is not just one."""
    files = sorted(Path(folder).glob("*.gguf")) if folder is not None else []
    return str(files[0]) if len(files) == 1 else None
