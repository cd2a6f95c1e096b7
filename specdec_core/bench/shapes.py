"""Pairs of real sizes with bigram text: random weights whose next token depends on the last one only.

The outputs of attention and MLP are scaled to almost zero, so that a model sees only the last token x, and
the output layer makes π(x) the next one. The drafter agrees for a share alpha of the tokens. A pair is loaded
like any other.
"""

from __future__ import annotations

import contextlib
import gc
import random
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from ..engine import Engine
from ..errors import SettingsError
from ..loading.devices import dtype_for, resolve_device
from ..pair import LoadedPair
from ..settings import Quantization

_LAYER_SCALE = 1e-3
_PROMPT_TOKENS = 32
_PROMPTS = 16


@contextlib.contextmanager
def bigram_pair(
    target_config: str,
    drafter_config: str,
    *,
    alpha: float,
    device: str | None = None,
    quantization: Quantization | None = None,
    seed: int = 0,
) -> Iterator[Engine]:
    """Load a pair of the sizes in two config.json files, whose greedy acceptance rate is `alpha`.

    The weights go through a temporary folder; at the end they are unloaded and removed. Raises SettingsError
    for configs that cannot be read, differ in vocabulary size, or make a model that sees more than the last
    token.
    """
    resolved = resolve_device(device)
    configs = [_config(path) for path in (target_config, drafter_config)]
    vocab = {config.vocab_size for config in configs}
    if len(vocab) > 1:
        raise SettingsError(
            f"The two shapes have vocabularies of {configs[0].vocab_size} and {configs[1].vocab_size}; a "
            "pair has one."
        )
    torch.manual_seed(seed)
    followers = next_tokens(vocab.pop(), _ends(configs), seed)
    followers = [followers, partly_other(followers, alpha, _ends(configs), seed + 1)]
    with tempfile.TemporaryDirectory(prefix="specdec-shapes-") as root:
        folders = [Path(root, name) for name in ("target", "drafter")]
        for config, follower, folder in zip(configs, followers, folders, strict=True):
            _save_model(config, follower, folder, resolved)
            word_tokenizer(config.vocab_size).save_pretrained(folder)
        engine = Engine.load(
            target=str(folders[0]), drafter=str(folders[1]), device=str(resolved), quantization=quantization
        )
        title = f"{target_config} drafted by {drafter_config}, alpha {alpha:g}"
        engine.info = replace(engine.info, title=title)
        try:
            yield engine
        finally:
            engine.unload()


def bigram_prompts(pair: LoadedPair) -> list[str]:
    """Return raw prompts of random words, EOS tokens left out."""
    draw = random.Random(0)
    words = [n for n in range(pair.target.vocab_size) if n not in pair.eos_ids]
    return [" ".join(f"w{n}" for n in draw.choices(words, k=_PROMPT_TOKENS)) for _ in range(_PROMPTS)]


def next_tokens(vocab: int, avoided: Collection[int], seed: int) -> Tensor:
    """Return π [vocab]: one cycle through all tokens but the avoided ones, which follow themselves."""
    allowed = torch.tensor([n for n in range(vocab) if n not in avoided])
    order = allowed[torch.randperm(len(allowed), generator=torch.Generator().manual_seed(seed))]
    followers = torch.arange(vocab)
    followers[order] = order.roll(-1)
    return followers


def partly_other(followers: Tensor, alpha: float, avoided: Collection[int], seed: int) -> Tensor:
    """Return another permutation [vocab] that equals `followers` for a share alpha of the tokens."""
    allowed = torch.tensor([n for n in range(len(followers)) if n not in avoided])
    shuffled = allowed[torch.randperm(len(allowed), generator=torch.Generator().manual_seed(seed))]
    differing = shuffled[round(alpha * len(allowed)) :]
    other = followers.clone()
    other[differing] = followers[differing].roll(1)
    return other


def word_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, in which token n is the word wn."""
    backend = Tokenizer(WordLevel({f"w{n}": n for n in range(vocab)}, unk_token="w0"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def _config(path: str) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"{path} is no model's config.json: {str(error).splitlines()[0]}") from error
    # With tied weights every token would follow itself.
    config.tie_word_embeddings = False
    return config


def _ends(configs: Collection[PreTrainedConfig]) -> set[int]:
    """Ids of all special tokens, with which a model could begin or end."""
    ids: set[int] = set()
    for config in configs:
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(config, name, None)
            ids |= set() if value is None else {value} if isinstance(value, int) else set(value)
    return ids


@torch.no_grad()
def _save_model(config: PreTrainedConfig, followers: Tensor, folder: Path, device: torch.device) -> None:
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype_for(config, device)).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.mul_(_LAYER_SCALE)
    embedding = model.get_input_embeddings().get_parameter("weight")
    # Rows of length √hidden have entries near 1, so that the layers' outputs do not matter.
    rows = torch.nn.functional.normalize(torch.randn(embedding.shape, device=device), dim=-1)
    embedding.copy_(rows * embedding.shape[1] ** 0.5)
    output = model.get_output_embeddings().get_parameter("weight")
    output[followers.to(device)] = rows.to(embedding.dtype)
    allowed = [n for n in range(config.vocab_size) if n not in _ends([config])]
    ids = torch.tensor(random.Random(0).choices(allowed, k=32), device=device)
    if model(ids[None]).logits[0].argmax(-1).tolist() != followers[ids.cpu()].tolist():
        raise SettingsError(
            f"A {config.model_type} model of these sizes does not depend on its last token alone (norms "
            "after its layers, or too small a hidden size). Use the sizes of a Llama, Gemma or Qwen3 model."
        )
    model.save_pretrained(folder)
    del model, embedding, output, rows
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
