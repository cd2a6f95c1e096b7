"""Tiny random pairs of the families that presets name: the real architecture, the real tokenizer class, and a
chat template that behaves as the published one does. Vocabularies and weights are made here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GemmaTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.support.tiny_models import noisy_copy

_TEXT = [
    "Once upon a time there was a little dog who lived in a big house by the sea.",
    "He said: don't go! “Where?” asked naïve Zoë — over 12 years old, 漢字 and 🙂 emoji.",
    "You are a helpful assistant. user system model\n\ndef f(x):\n    return x + 1\n",
]
_SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}

# The system message has a turn of its own; contents are trimmed.
_LLAMA_TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

# A default system message is put in where there is none.
_CHATML_TEMPLATE = """{%- if messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

# Thinking is left out of answers that came before the last question; a switch ends it before it begins.
_QWEN3_TEMPLATE = """{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- set content = message.content %}
{%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.last %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""

# No system message, strict turns, and the assistant is called model.
_GEMMA_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{%- endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""


@dataclass(frozen=True)
class Family:
    """A family's models, tokenizer and template. `padding` is the number of logits of target and
    drafter beyond the tokenizer's ids.
    """

    tokenizer: Callable[[], PreTrainedTokenizerBase]
    model: Callable[[int], PreTrainedModel]
    ends: tuple[str, ...]
    takes_system_message: bool
    padding: tuple[int, int] = (0, 0)


def save_family(folder: Path, family: Family) -> tuple[str, str]:
    """Writes target and drafter; returns their folders."""
    tokenizer = family.tokenizer()
    size = len(tokenizer)
    torch.manual_seed(0)
    target = family.model(size + family.padding[0])
    with torch.no_grad():
        for parameter in target.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in family.ends]
    for name, padding in zip(("target", "drafter"), family.padding, strict=True):
        model = target if name == "target" else noisy_copy(target, 0.1)
        if model.config.vocab_size != size + padding:
            model.resize_token_embeddings(size + padding)
        model.generation_config = GenerationConfig(eos_token_id=ends, bos_token_id=tokenizer.bos_token_id)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return str(folder / "target"), str(folder / "drafter")


def _byte_level() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary that holds every byte, and its merges."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(_TEXT, trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _special(*tokens: str) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _llama_tokenizer() -> PreTrainedTokenizerBase:
    vocabulary, merges = _byte_level()
    backend = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        _special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                 "<|eom_id|>", "<|eot_id|>")
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=_LLAMA_TEMPLATE,
    )


def _qwen_tokenizer(template: str, *words: str) -> PreTrainedTokenizerBase:
    """Qwen's own class; `words` are control tokens that are not flagged special."""
    vocabulary, merges = _byte_level()
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )
    tokenizer.add_tokens(_special("<|im_start|>"), special_tokens=True)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    return tokenizer


def _gemma_tokenizer() -> PreTrainedTokenizerBase:
    """SentencePiece's way: spaces are ▁, what has no piece falls back to bytes."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["▁", "\n", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:!?'+-=()"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("i", "n"), ("a", "n"), ("o", "u"), ("▁", "a")]
    pieces += ["".join(merge) for merge in merges]
    tokenizer = GemmaTokenizer(
        vocab={piece: at for at, piece in enumerate(pieces)}, merges=merges, chat_template=_GEMMA_TEMPLATE
    )
    tokenizer.add_tokens(_special("<start_of_turn>", "<end_of_turn>"), special_tokens=True)
    return tokenizer


def _llama(width: int) -> PreTrainedModel:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 512, "rope_theta": 500000.0}  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(**_SHAPE, vocab_size=width, tie_word_embeddings=True, rope_parameters=scaling)
    )


def _smollm(width: int) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_SHAPE, vocab_size=width, tie_word_embeddings=True))


# Untied: a random Gemma with tied embeddings repeats its last token.
def _gemma(width: int) -> PreTrainedModel:
    return GemmaForCausalLM(GemmaConfig(**_SHAPE, vocab_size=width, head_dim=16, tie_word_embeddings=False))


def _gemma2(width: int) -> PreTrainedModel:
    # The window is shorter than the conversations, so that it matters.
    config = Gemma2Config(
        **_SHAPE, vocab_size=width, head_dim=16, sliding_window=24, query_pre_attn_scalar=16,
        tie_word_embeddings=False,
    )  # fmt: skip
    return Gemma2ForCausalLM(config)


def _qwen2(width: int) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**_SHAPE, vocab_size=width, tie_word_embeddings=False))


def _qwen3(width: int) -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**_SHAPE, vocab_size=width, head_dim=16, tie_word_embeddings=True))


FAMILIES = {
    "llama": Family(_llama_tokenizer, _llama, ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"), True),
    "smollm2": Family(lambda: _qwen_tokenizer(_CHATML_TEMPLATE), _smollm, ("<|im_end|>",), True),
    "gemma": Family(_gemma_tokenizer, _gemma, ("<eos>", "<end_of_turn>"), False),
    "gemma2": Family(_gemma_tokenizer, _gemma2, ("<eos>", "<end_of_turn>"), False),
    "qwen2": Family(
        lambda: _qwen_tokenizer(_CHATML_TEMPLATE), _qwen2, ("<|im_end|>", "<|endoftext|>"), True, (9, 1)
    ),
    "qwen3": Family(
        lambda: _qwen_tokenizer(_QWEN3_TEMPLATE, "<think>", "</think>"),
        _qwen3,
        ("<|im_end|>", "<|endoftext|>"),
        True,
    ),
}
