"""A preset whose drafter has another vocabulary than its target, which the gate refuses."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

WORDS = ["<unk>", "<eos>", "once", "upon", "a", "time", "cat", "dog"]

PRESET = """\
title = "Two that do not fit"
description = "The drafter has another word where the target has dog."
license = "MIT"

[target]
model = "./mismatched/target"

[drafter]
model = "./mismatched/drafter"
"""


def write_mismatched_preset(folder: Path) -> None:
    """Write mismatched.toml and its two models: configurations and tokenizers without weights."""
    _write_model(folder / "mismatched" / "target", WORDS)
    _write_model(folder / "mismatched" / "drafter", [*WORDS[:-1], "cow"])
    (folder / "mismatched.toml").write_text(PRESET, encoding="utf-8")


def _write_model(folder: Path, words: list[str]) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>").save_pretrained(
        folder
    )
    LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
