"""Prints how far the memory estimate is from what a random Llama pair really takes on the CPU.

    python -m tests.support.measure_memory        # the embedded pair's shapes; 0.1, 0.3 and 1 B parameters
    python -m tests.support.measure_memory 0.5    # others

Each size is measured in a process of its own: the growth of its resident memory over loading, a prompt that
fills the planned context but for the answer, and the answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPES = {
    "stories": {"hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 8, "context": 512},
    "0.1": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "context": 1024},
    "0.3": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 18, "context": 2048},
    "0.5": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 20, "context": 4096},
    "1": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "context": 4096},
}


def resident_bytes() -> int:
    """Memory of this process that is in use now, pages of files that it has mapped included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def save_random_pair(folder: Path, shape: str) -> tuple[str, str]:
    """A target of the shape in bfloat16, as such files are, and a drafter of a quarter of its layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.support.tiny_pair import byte_level_tokenizer

    values = dict(SHAPES[shape])
    context = values.pop("context")
    vocabulary = 400 if shape == "stories" else 8000
    tokenizer = byte_level_tokenizer()
    paths = []
    for name, layers in (
        ("target", values["num_hidden_layers"]),
        ("drafter", values["num_hidden_layers"] // 4),
    ):
        config = LlamaConfig(
            **values | {"num_hidden_layers": layers},
            vocab_size=vocabulary,
            num_attention_heads=values["hidden_size"] // 64,
            num_key_value_heads=2,
            max_position_embeddings=context,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        paths.append(str(folder / name))
    return paths[0], paths[1]


def measure(target: str, drafter: str) -> dict[str, int]:
    """Estimate and measured growth in bytes, in this process."""
    import torch
    from transformers import LlamaForCausalLM  # noqa: F401 (loaded before the measurement starts)

    import specdec_core as sd
    from specdec_core.loading.memory import memory_need
    from specdec_core.loading.weights import ModelSource

    device = torch.device("cpu")
    # What libraries set up once in a process is no part of a pair.
    sd.Engine.load(target=drafter, device="cpu", vocab_padding="trim").unload()
    need = memory_need([ModelSource(target), ModelSource(drafter)], device)
    before = resident_bytes()
    engine = sd.Engine.load(target=target, drafter=drafter, device="cpu", vocab_padding="trim")
    loaded = resident_bytes()
    session = engine.session()
    prompt = "a b " * ((need.positions - 16) // 4)
    engine.generate(prompt, sd.Settings(max_new_tokens=12, gamma=2), session)
    answered = resident_bytes()
    del session
    engine.unload()
    return {
        "weights": need.weights_bytes,
        "cache": need.cache_bytes,
        "working": need.working_bytes,
        "estimate": need.total_bytes,
        "loaded": loaded - before,
        "measured": answered - before,
        "unloaded": resident_bytes() - before,
    }


def measured_apart(shape: str) -> dict[str, int]:
    """`measure` of a random pair in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        paths = save_random_pair(Path(folder), shape)
        run = subprocess.run(
            [sys.executable, "-m", "tests.support.measure_memory", "--measure", *paths],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    if run.returncode:
        raise RuntimeError(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        for shape in sys.argv[1:] or ["stories", "0.1", "0.3", "1"]:
            values = measured_apart(shape)
            shown = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in values.items())
            print(f"{shape}: {shown} MB; estimate / measured {values['estimate'] / values['measured']:.2f}")
