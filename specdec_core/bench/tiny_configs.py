"""Configurations of a few thousand weights for any model type: transformers' defaults with small sizes."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

WINDOW = 40
"""Positions that a layer with a sliding window or with chunks sees."""
CONTEXT = 1024

_BY_SIZE: dict[int, str] = {
    CONTEXT: "max_position_embeddings n_positions max_seq_len context_length model_max_length seq_length "
    "max_target_positions",
    128: "mamba_d_ssm",
    100: "ngram_vocab_size_base",
    96: "intermediate_size ffn_dim ffn_hidden_size feed_forward_size dff d_inner dim_ff decoder_ffn_dim "
    "encoder_ffn_dim dense_intermediate_size",
    64: "hidden_size d_model n_embd embedding_size emb_dim embedding_dim attention_hidden_size lru_width "
    "word_embed_proj_dim input_embedding_size output_embedding_size encoder_hidden_size out_hidden_size "
    "projection_dim pronunciation_embed_dim shape_embed_dim rel_extent",
    WINDOW: "sliding_window sliding_window_size attention_chunk_size window_size local_attention "
    "attention_window_size keep_window_size",
    32: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size q_lora_rank "
    "shared_experts_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size "
    "intermediate_size_mlp router_hidden_size ple_embed_dim image_size",
    16: "head_dim d_head dim_head attention_head_dim attention_head_size kv_channels swa_head_dim "
    "global_head_dim v_head_dim kv_lora_rank qk_head_dim linear_key_head_dim linear_value_head_dim "
    "linear_head_dim index_head_dim index_topk mamba_head_dim mamba_d_head mamba_chunk_size chunk_size "
    "query_pre_attn_scalar o_lora_rank patch_size",
    8: "qk_rope_head_dim qk_nope_head_dim rotary_dim mamba_d_state mamba_n_heads mamba_dt_rank state_size "
    "ssm_state_size d_rel hidden_size_per_layer_input laurel_rank hc_lowrank gated_norm_rank loop_gate_rank "
    "adapter_rank index_block_size",
    4: "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads "
    "encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads "
    "linear_num_key_heads linear_num_value_heads linear_num_heads index_n_heads mamba_num_heads num_experts "
    "n_routed_experts num_local_experts moe_num_experts index_topk_blocks time_step_rank",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_blocks depth "
    "num_decoder_layers num_encoder_layers num_key_value_heads num_kv_heads num_experts_per_tok "
    "num_experts_per_token moe_topk moe_k swa_num_key_value_heads num_global_key_value_heads zero_expert_num "
    "n_mamba_heads n_groups o_groups",
    1: "n_group topk_group num_expert_group n_shared_experts num_shared_experts moe_num_shared_experts "
    "first_k_dense_replace",
    0: "num_kv_shared_layers",
}
_SIZES = {name: size for size, names in _BY_SIZE.items() for name in names.split()}

_LOCAL_AND_FULL = ["sliding_attention", "full_attention"]
_ROTATION = {"rope_type": "default", "rope_theta": 10_000.0}
_OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": _LOCAL_AND_FULL, "rope_parameters": dict.fromkeys(_LOCAL_AND_FULL, _ROTATION),
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10_000.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {
        "num_hidden_layers": 3, "n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1,
        "layer_types": [*_LOCAL_AND_FULL, "full_attention"],
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n_text": {"num_hidden_layers": 4, "layer_types": _LOCAL_AND_FULL * 2, "num_kv_shared_layers": 2},
    "gemma4_text": {"num_hidden_layers": 4, "layer_types": _LOCAL_AND_FULL * 2, "num_kv_shared_layers": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 32,
        "indexer_compress_ratio": 8,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 128, "attention_head_dim": 32, "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {"num_hidden_layers": 2, "layers_block_type": ["linear_attention", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
"""Values of single types, where the general ones contradict each other."""


def tiny_config(model_type: str, vocab_size: int) -> PreTrainedConfig:
    """Return a small configuration. Raises whatever the type's own checks raise."""
    return _shrunk(AutoConfig.for_model(model_type), vocab_size)


def _shrunk(config: PreTrainedConfig, vocab_size: int) -> PreTrainedConfig:
    defaults = config.to_dict()
    taken = inspect.signature(type(config).__init__).parameters
    values: dict[str, Any] = {name: size for name, size in _SIZES.items() if name in taken}
    # What is absent by default stays so, but for sizes that are derived from others.
    derived = ("head_dim", "num_key_value_heads", "embedding_dim")
    values = {k: v for k, v in values.items() if defaults.get(k) is not None or k in derived}
    values |= {name: vocab_size for name in taken if "vocab_size" in name and defaults.get(name) is not None}
    if "qk_rope_head_dim" in taken:  # multi-head latent attention has a key head for each query head
        values |= {"num_key_value_heads": 4} | ({"head_dim": 8} if "head_dim" in taken else {})
    if "layer_types" in taken and (kinds := defaults.get("layer_types")):
        kinds = list(dict.fromkeys(kinds))
        values["layer_types"] = kinds if len(kinds) > 1 else kinds * 2
        values["num_hidden_layers"] = len(values["layer_types"])
    parts = {name: part for name, part in vars(config).items() if isinstance(part, PreTrainedConfig)}
    values |= {name: _shrunk(part, vocab_size) for name, part in parts.items()}
    decoder = {"is_encoder_decoder": False, "is_decoder": True, "tie_word_embeddings": False}
    values |= {name: value for name, value in decoder.items() if name in defaults}
    pad = None if defaults.get("pad_token_id") is None else 1
    values |= {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": pad}
    return type(config)(**(values | _OWN.get(config.model_type, {})))
