"""Compilation of the kernels, without a GPU, in every form that the fused forward launches; and the PTX that
decodes NF4, run instruction by instruction.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from specdec_core.runners.nf4_lookup import lookup_in_registers
from specdec_core.runners.static import StaticRunner
from tests.support.kernel_launches import Launch, compiled, has_assembler, recorded_launches
from tests.support.triton_kernels import VOCAB, fusable_model

pytest.importorskip("triton")

from specdec_core.runners import kernels  # needs Triton

CONSUMER_SHARED_BYTES = 99 * 1024
"""Shared memory of one block on a consumer GPU (compute capability 8.6, 8.9 and 12.0)."""
NF4 = [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105003, 0.0,
       0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]  # fmt: skip


def bits(values: list[float], dtype: torch.dtype) -> list[int]:
    """The 16 bits of each value."""
    return [value & 0xFFFF for value in torch.tensor(values).to(dtype).view(torch.int16).tolist()]


LLAMA = {"num_key_value_heads": 2, "hidden_size": 128}
MODELS = {
    "Llama 3": ("llama", "nf4", LLAMA | {"num_attention_heads": 8, "head_dim": 128}),
    "Llama 3.2": ("llama", "int8", LLAMA | {"num_attention_heads": 8, "head_dim": 64}),
    "Gemma 2": ("gemma2", "nf4", LLAMA | {"num_attention_heads": 4, "head_dim": 256, "sliding_window": 12}),
    "Qwen 2.5": ("qwen2", None, LLAMA | {"num_attention_heads": 14, "hidden_size": 448}),
    "Qwen 3": ("qwen3", None, LLAMA | {"num_attention_heads": 8, "head_dim": 128}),
}
"""Heads as the presets' models have them, in small models otherwise."""


@pytest.fixture(scope="module")
def launches() -> list[Launch]:
    """Each kernel as one row and the most rows launch it."""
    pytest.importorskip("bitsandbytes")
    if not has_assembler():
        pytest.skip("Triton comes without the assembler")
    with recorded_launches() as recorded:
        for family, quantization, shape in MODELS.values():
            runner = StaticRunner(fusable_model(family, quantization, torch.bfloat16, **shape))
            assert runner.why_unfused is None
            for rows in (1, 17):
                runner.forward(runner.new_cache(), torch.randint(3, VOCAB, (rows,)))
    return [as_large(launch) for launch in recorded]


def as_large(launch: Launch) -> Launch:
    """The launch as a model of 8 billion weights has it on a GPU, whose products have more parts."""
    if launch.name == "add_and_norm":
        parts = 1 if launch.constant("EMBEDS") else 8
        return launch.with_constants(BLOCK=4096, PARTS=parts).with_options(num_warps=16)
    if launch.name in ("rotate_and_store", "activate"):
        return launch.with_constants(PARTS=8)
    if launch.name == "product" and launch.constant("FORMAT") == kernels.NF4:
        return launch.with_constants(LOOKUP=lookup_in_registers(bits(NF4, torch.bfloat16)))
    return launch


def test_every_kernel_is_recorded(launches):
    names = Counter(launch.name for launch in launches)
    assert set(names) == {"add_and_norm", "rotate_and_store", "attend", "combine", "activate", "product"}
    formats = {launch.constant("FORMAT") for launch in launches if launch.name == "product"}
    assert formats == {kernels.NF4, kernels.INT8}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["add_and_norm", "rotate_and_store", "combine", "activate"])
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_kernels_between_products_compile(launches, name, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for launch in {launch for launch in launches if launch.name == name}:
        assert compiled(launch, 80).metadata.shared < CONSUMER_SHARED_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 89, 90])
def test_products_compile_for_every_generation(launches, capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for launch in {launch for launch in launches if launch.name == "product"}:
        assert compiled(launch, capability).metadata.shared < CONSUMER_SHARED_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "least_rows"), [(80, 32), (89, 16), (90, 32)])
def test_attention_compiles_for_every_generation(launches, capability, least_rows, tmp_path, monkeypatch):
    """On one with blocks of all sizes, on the others with the large ones."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    attends = {launch for launch in launches if launch.name == "attend"}
    for launch in (launch for launch in attends if launch.constant("BLOCK_R") >= least_rows):
        assert compiled(launch, capability).metadata.shared < CONSUMER_SHARED_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [8, 16, 80])
def test_heads_of_any_size_compile(head_dim, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    if not has_assembler():
        pytest.skip("Triton comes without the assembler")
    with recorded_launches() as recorded:
        model = fusable_model("llama", None, torch.bfloat16, head_dim=head_dim, num_hidden_layers=1)
        runner = StaticRunner(model)
        runner.forward(runner.new_cache(), torch.randint(3, VOCAB, (1,)))
    attention = [launch for launch in recorded if launch.name in ("attend", "combine")]
    assert len(attention) == 2
    for launch in attention:
        assert compiled(launch, 90).metadata.shared < CONSUMER_SHARED_BYTES


class Registers(dict[str, int]):
    """Registers of 32 bits, and the instructions of PTX that the decoding has."""

    def run(self, ptx: str) -> None:
        for line in ptx.splitlines():
            if match := re.fullmatch(r"(and|shr|shl|mov|prmt|lop3)\.b32 (\S+), (.+);", line):
                operation, target, operands = match.groups()
                values = [self._value(operand) for operand in operands.split(", ")]
                self[target] = getattr(self, f"_{operation}")(*values) & 0xFFFFFFFF
            else:
                assert line in ("{", "}") or line.startswith(".reg"), f"an unknown instruction: {line}"

    def _value(self, operand: str) -> int:
        return self[operand] if operand in self else int(operand, 0)

    @staticmethod
    def _mov(a: int) -> int:
        return a

    @staticmethod
    def _and(a: int, b: int) -> int:
        return a & b

    @staticmethod
    def _shr(a: int, b: int) -> int:
        return a >> b

    @staticmethod
    def _shl(a: int, b: int) -> int:
        return a << b

    @staticmethod
    def _lop3(a: int, b: int, c: int, table: int) -> int:
        places = (((a >> at & 1) << 2 | (b >> at & 1) << 1 | (c >> at & 1)) for at in range(32))
        return sum((table >> place & 1) << at for at, place in enumerate(places))

    @staticmethod
    def _prmt(a: int, b: int, selector: int) -> int:
        source = a.to_bytes(4, "little") + b.to_bytes(4, "little")
        result = []
        for at in range(4):
            nibble = selector >> 4 * at & 15
            byte = source[nibble & 7]
            # The highest bit asks for the sign of the byte, repeated.
            result.append((0xFF if byte & 0x80 else 0) if nibble & 8 else byte)
        return int.from_bytes(bytes(result), "little")


def decoded(ptx: str, packed: bytes) -> tuple[list[int], list[int]]:
    """Values of the high and of the low four bits of four bytes."""
    registers = Registers({"$4": int.from_bytes(packed, "little")})
    registers.run(ptx)
    words = [registers[f"${at}"] for at in range(4)]
    values = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    return values[:4], values[4:]


RANDOM = torch.randint(0, 2**16, (16,), generator=torch.Generator().manual_seed(5)).tolist()
CODES = {
    "bfloat16": bits(NF4, torch.bfloat16),
    "float16": bits(NF4, torch.float16),
    "random": RANDOM,
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_the_ptx_decodes_every_byte_in_every_place(code):
    ptx = lookup_in_registers(code)
    for first in range(256):
        packed = bytes((first + 67 * place) % 256 for place in range(4))  # all bytes in all places
        high, low = decoded(ptx, packed)
        assert high == [code[byte >> 4] for byte in packed]
        assert low == [code[byte & 15] for byte in packed]
