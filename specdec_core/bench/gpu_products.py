"""Times of single operations on a GPU: products by shape, rows and weight format, attention, sampling rules.

Products run over several copies of the weight, more than the L2 cache holds, one after the other.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, scaled_dot_product_attention

from ..errors import quote
from ..loading.step_times import ANY_ID
from ..runners import runner_for
from ..sampling import DeviceSampling, sampler_for
from ..sampling.noise import KeyedNoise
from ..settings import Settings
from .gpu_findings import Outcome
from .gpu_kernels import fused_attention_over, fused_int8_product, fused_nf4_product
from .gpu_run import StepRun
from .gpu_shapes import random_shape
from .gpu_timing import graph_ms

Product = Callable[[Tensor], Tensor]
"""A product with one weight: x [rows, in] → [rows, out]."""
WeightFormat = Callable[[Tensor], Product]
"""A weight format: returns the product with a bfloat16 weight [out, in] that it converts."""


@dataclass(frozen=True, slots=True)
class WeightShape:
    """The shape [outputs, inputs] of a weight. Output layers stay in bfloat16."""

    name: str
    outputs: int
    inputs: int
    head: bool = False


SHAPES = (
    WeightShape("3B qkv", 5120, 3072),
    WeightShape("3B q or o", 3072, 3072),
    WeightShape("3B k or v", 1024, 3072),
    WeightShape("3B gate or up", 8192, 3072),
    WeightShape("3B gate and up", 16384, 3072),
    WeightShape("3B down", 3072, 8192),
    WeightShape("3B head", 128256, 3072, head=True),
    WeightShape("1B qkv", 3072, 2048),
    WeightShape("1B gate or up", 8192, 2048),
    WeightShape("1B gate and up", 16384, 2048),
    WeightShape("1B down", 2048, 8192),
    WeightShape("1B head", 128256, 2048, head=True),
)
"""The products of Llama 3.2 3B and 1B."""
_SMOKE_SHAPES = (WeightShape("smoke", 64, 64), WeightShape("smoke head", 128, 64, head=True))
_ROWS = (1, 2, 3, 5, 6, 9)
_COPIED_BYTES = 2**28
_HEADS = ((24, 8, 128), (32, 8, 64))
"""Query heads, key heads and their width, of 3B and 1B."""
_KEYS = (512, 2048)
_SAMPLED = Settings(temperature=0.6, gamma=4, seed=1)
_COUPLED = dataclasses.replace(_SAMPLED, verification="coupled")
_RULES = {
    "greedy": dataclasses.replace(_SAMPLED, temperature=0),
    "rejection": _SAMPLED,
    "rejection, min-p": dataclasses.replace(_SAMPLED, min_p=0.05),
    "rejection, top-p": dataclasses.replace(_SAMPLED, top_p=0.9),
    "rejection, top-k, top-p and min-p": dataclasses.replace(_SAMPLED, top_k=50, top_p=0.9, min_p=0.01),
    "rejection, typical-p": dataclasses.replace(_SAMPLED, typical_p=0.9),
    "rejection, repetition penalty": dataclasses.replace(_SAMPLED, repetition_penalty=1.1),
    "rejection, alternatives": dataclasses.replace(_SAMPLED, alternatives=5),
    "coupled": _COUPLED,
    "coupled, top-p": dataclasses.replace(_COUPLED, top_p=0.9),
}
_PROMPTS = (100, 137, 201, 137, 300, 512, 900)
"""Lengths of prompts; the second 137 finds what was set up for the first."""


def products_step(run: StepRun) -> None:
    """Time products in every weight format, and attention."""
    formats: dict[str, WeightFormat] = {"bf16": lambda weight: partial(linear, weight=weight)}
    if (obstacle := run.obstacle("nf4")) is None:
        formats |= {"nf4": nf4_product, "nf4 fused": fused_nf4_product, "int8 fused": fused_int8_product}
    else:
        run.add("products in nf4", Outcome("skipped", obstacle))
    for shape in _SMOKE_SHAPES if run.smoke else SHAPES:
        run.attempt(shape.name, partial(time_products, run, shape, formats))
    for heads, kv_heads, head_dim in _HEADS:
        for keys in _KEYS:
            name = f"attention of {heads} heads over {keys} positions"
            run.attempt(name, partial(_attention, run, heads, kv_heads, head_dim, keys))


def nf4_product(weight: Tensor) -> Product:
    """The product of bitsandbytes with the weight in NF4, as the loader makes it."""
    bitsandbytes: Any = importlib.import_module("bitsandbytes")

    data, state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=False, quant_type="nf4"
    )
    return lambda x: bitsandbytes.matmul_4bit(x, data, quant_state=state)


def time_products(
    run: StepRun, shape: WeightShape, formats: Mapping[str, WeightFormat], rows: Sequence[int] = _ROWS
) -> Outcome:
    """Time x [rows, inputs] times the weight, in microseconds by format and number of rows."""
    copies = 1 if run.smoke else max(1, _COPIED_BYTES // (2 * shape.outputs * shape.inputs))
    size = (shape.outputs, shape.inputs)
    weights = [torch.randn(size, device=run.device, dtype=torch.bfloat16) for _ in range(copies)]
    microseconds: dict[str, dict[int, float]] = {}
    with torch.inference_mode():
        for name, convert in formats.items():
            if shape.head and name != "bf16":
                continue
            products = [convert(weight) for weight in weights]
            microseconds[name] = {count: _product_us(run, products, shape.inputs, count) for count in rows}
    text = "; ".join(f"{name} {_listed(found)} µs" for name, found in microseconds.items())
    figures = {"shape": size, "rows": list(rows), "us": microseconds}
    return Outcome("measured", f"{text} for {_listed(rows)} rows", figures)


def _product_us(run: StepRun, products: Sequence[Product], inputs: int, rows: int) -> float:
    x = torch.randn(rows, inputs, device=run.device, dtype=torch.bfloat16)

    def all_copies() -> None:
        for product in products:
            product(x)

    return round(1000 * graph_ms(run.device, all_copies, 5) / len(products), 2)


def _listed(numbers: Mapping[int, float] | Sequence[int]) -> str:
    values = numbers.values() if isinstance(numbers, Mapping) else numbers
    return " / ".join(f"{value:g}" for value in values)


def _attention(run: StepRun, heads: int, kv_heads: int, head_dim: int, keys: int) -> Outcome:
    """Time the attention of one layer, in microseconds by way of computing it, over 1 and 5 rows."""
    lines, figures = [], {}
    for rows in (1, 5):
        found = _attention_us(run, rows, heads // kv_heads, kv_heads, head_dim, keys)
        figures[f"{rows} rows"] = found
        best = ", ".join(f"{name} {us:.1f}" for name, us in found.items() if isinstance(us, float))
        lines.append(f"{rows} rows: {best}")
    return Outcome("measured", f"µs of {'; '.join(lines)}", figures)


def _attention_us(
    run: StepRun, rows: int, group: int, kv_heads: int, head_dim: int, keys: int
) -> dict[str, float | str]:
    """Microseconds, or the error where a kernel does not support the inputs, by name."""
    folded = rows * group
    query = torch.randn(kv_heads, folded, head_dim, device=run.device, dtype=torch.bfloat16)
    key, value = torch.randn(2, kv_heads, keys, head_dim, device=run.device, dtype=torch.bfloat16)
    mask = torch.zeros(folded, keys, device=run.device, dtype=torch.bfloat16)
    mask[:, keys // 2 :] = -torch.inf
    scale = head_dim**-0.5

    def products() -> Tensor:
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
        return torch.bmm(scores.softmax(-1), value)

    def fused(backend: SDPBackend, added: Tensor | None) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(query[None], key[None], value[None], added, scale=scale)

    functions: dict[str, Callable[[], Tensor]] = {"products": products}
    if not run.smoke:
        functions["fused"] = fused_attention_over(query, key, value, rows, keys // 2)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        name = backend.name.removesuffix("_ATTENTION").lower()
        functions[f"{name}, no mask"] = partial(fused, backend, None)
        if backend is not SDPBackend.FLASH_ATTENTION:
            functions[f"{name}, mask"] = partial(fused, backend, mask)
    found: dict[str, float | str] = {}
    with torch.inference_mode():
        for name, function in functions.items():
            try:
                function()
            except Exception as error:
                found[name] = quote(error)
                continue
            found[name] = round(1000 * graph_ms(run.device, function, 20), 2)
    return found


def sampling_step(run: StepRun) -> None:
    """Time a draft and a verification of five rows by every rule, over the vocabulary of Llama 3.2."""
    sampling = DeviceSampling(run.device, 512 if run.smoke else 128256)
    for name, settings in _RULES.items():
        run.attempt(name, partial(_rule_us, run, sampling, settings))


@torch.inference_mode()
def _rule_us(run: StepRun, sampling: DeviceSampling, settings: Settings) -> Outcome:
    sampler = sampler_for(settings, KeyedNoise(settings.seed, run.device), sampling)
    one, five = (
        torch.randn(rows, sampling.vocab, device=run.device, dtype=torch.bfloat16) for rows in (1, 5)
    )
    sampler.start_round([ANY_ID], 4)
    for step in range(4):
        sampler.draft(step)(one)
    verify = sampler.verify
    verify_us = 1000 * graph_ms(run.device, lambda: verify(five))
    draft = sampler.draft(0)
    draft_us = 1000 * graph_ms(run.device, lambda: draft(one))
    figures = {"draft_us": draft_us, "verify_5_rows_us": verify_us}
    return Outcome("measured", f"draft {draft_us:.1f} µs, verification {verify_us:.1f} µs", figures)


def first_rows_step(run: StepRun) -> None:
    """Time the first row of prompts of new lengths, with cuDNN among the attention kernels and without."""
    for cudnn in (True, False):
        name = f"time to first row {'with' if cudnn else 'without'} cuDNN"
        run.attempt(name, partial(_first_rows, run, cudnn))


def _first_rows(run: StepRun, cudnn: bool) -> Outcome:
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    try:
        runner = runner_for(random_shape("llama_1b", "bf16", run.device, run.smoke))
        milliseconds = []
        for tokens in _PROMPTS:
            cache = runner.new_cache()
            started = time.perf_counter()
            logits = runner.prefill(cache, [ANY_ID] * tokens)
            assert logits is not None
            logits.float().sum().item()  # waits for the device
            milliseconds.append(round(1000 * (time.perf_counter() - started), 1))
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)
    pairs = ", ".join(f"{n}: {ms}" for n, ms in zip(_PROMPTS, milliseconds, strict=True))
    return Outcome("measured", f"ms by tokens: {pairs}", {"tokens": _PROMPTS, "ms": milliseconds})
