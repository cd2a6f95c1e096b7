"""Small random models for tests: real architectures, and a lookup model fast enough for statistics."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 96
_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def _gpt2(vocab_size: int = VOCAB) -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=256))


def _gemma2() -> PreTrainedModel:
    # The window is shorter than the tests' contexts, so that it matters. Untied, or Gemma repeats itself.
    config = Gemma2Config(
        **_SHAPE, head_dim=16, sliding_window=12, tie_word_embeddings=False, attn_implementation="eager"
    )
    return Gemma2ForCausalLM(config)


def _gemma3() -> PreTrainedModel:
    # Layers with a window rotate by another base than those without.
    config = Gemma3TextConfig(
        **_SHAPE,
        head_dim=16,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=False,
    )
    return Gemma3ForCausalLM(config)


def _qwen2() -> Qwen2ForCausalLM:
    model = Qwen2ForCausalLM(Qwen2Config(**_SHAPE, head_dim=16))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # which are zeros otherwise
            torch.nn.init.normal_(parameter)
    return model


def _llama(**shape: int) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**{**_SHAPE, "head_dim": 16, **shape}))


ARCHITECTURES = {
    "llama": _llama,
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**_SHAPE, head_dim=16, tie_word_embeddings=False)),
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "qwen2": _qwen2,
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SHAPE, head_dim=16)),
    "gpt2": _gpt2,
}


def tiny_model(architecture: str, seed: int = 0, **shape: int) -> PreTrainedModel:
    """A random model in float32 whose distributions are far from uniform."""
    torch.manual_seed(seed)
    model = ARCHITECTURES[architecture](**shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


def uneven_model(architecture: str) -> PreTrainedModel:
    """The same with norms and biases that differ from each other, so that none can stand in for another."""
    model = tiny_model(architecture)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def noisy_copy(model: PreTrainedModel, noise: float, seed: int = 1) -> PreTrainedModel:
    """The same model with noise on its weights, relative to each one's spread: a drafter that is often,
    but not always, right.
    """
    copy = type(model)(model.config).eval()
    copy.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            spread = parameter.std() if parameter.numel() > 1 else 0
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread * noise)
    return copy


class TrigramModel(torch.nn.Module):
    """Logits looked up by the last two tokens, of which the earlier one comes out of the KV cache."""

    def __init__(self, table: torch.Tensor) -> None:
        """`table` [vocab, vocab, vocab]: the logits after (earlier, last)."""
        super().__init__()
        vocab = table.shape[0]
        self.table = torch.nn.Parameter(table, requires_grad=False)
        self.config = PreTrainedConfig(num_hidden_layers=1, vocab_size=vocab, max_position_embeddings=512)

    def get_input_embeddings(self) -> SimpleNamespace:
        return SimpleNamespace(weight=self.table)

    def forward(self, input_ids, past_key_values, use_cache=True, logits_to_keep=0):
        states = input_ids[:, None, :, None]
        held, _ = past_key_values.update(states, states, 0)
        last = held[0, 0, :, 0]
        earlier = torch.cat([last[:1], last[:-1]])
        rows = input_ids.shape[1] if logits_to_keep == 0 else logits_to_keep
        return SimpleNamespace(logits=self.table[earlier[-rows:], last[-rows:]][None])
