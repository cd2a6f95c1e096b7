"""Launches of the Triton kernels, recorded without a GPU, and their compilation for one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

KERNELS = "specdec_core.runners.kernels"
_POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
    torch.int8: "*i8",
}
_OPTIONS = ("num_warps", "num_stages")


@dataclass(frozen=True)
class Launch:
    """A kernel with what Triton compiles it for."""

    name: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    divisible: tuple[str, ...]
    """Arguments that are multiples of 16: Triton compiles for those apart."""
    options: tuple[tuple[str, int], ...]

    def constant(self, name: str) -> Any:
        """The value of a constant."""
        return dict(self.constants)[name]

    def with_constants(self, **constants: Any) -> Launch:
        """The same kernel with other constants."""
        return replace(self, constants=tuple((dict(self.constants) | constants).items()))

    def with_options(self, **options: int) -> Launch:
        """The same kernel with other options."""
        return replace(self, options=tuple((dict(self.options) | options).items()))


class _Recorder:
    """Stands in for the module with the kernels: every launch is recorded, and computes nothing."""

    INTERPRETED = True

    def __init__(self, kernels: Any, record: Callable[[Launch], None]) -> None:
        self._kernels = kernels
        self._record = record

    def __getattr__(self, name: str) -> Any:
        from triton import JITFunction

        value = getattr(self._kernels, name)
        return _Kernel(value, self._record) if isinstance(value, JITFunction) else value


class _Kernel:
    def __init__(self, function: Any, record: Callable[[Launch], None]) -> None:
        self._function = function
        self._record = record

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(size > 0 for size in grid)
        assert len(grid) <= 3
        return self._launch

    def _launch(self, *args: Any, **keywords: Any) -> None:
        options = {name: keywords.pop(name) for name in _OPTIONS if name in keywords}
        params = self._function.params
        values = dict(zip([param.name for param in params], args, strict=False)) | keywords
        assert set(values) == {param.name for param in params}
        signature, constants, divisible = {}, {}, []
        for param in params:
            value = values[param.name]
            one = type(value) is int and value == 1 and not param.do_not_specialize
            if param.is_constexpr or one:
                signature[param.name], constants[param.name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                assert value.is_contiguous()
                signature[param.name] = _POINTERS[value.dtype]
                divisible.append(param.name)
            else:
                signature[param.name] = "fp32" if isinstance(value, float) else "i32"
                if isinstance(value, int) and value % 16 == 0 and not param.do_not_specialize:
                    divisible.append(param.name)
        self._record(
            Launch(
                self._function.__name__,
                tuple(signature.items()),
                tuple(constants.items()),
                tuple(divisible),
                tuple(options.items()),
            )
        )


@contextmanager
def recorded_launches() -> Iterator[list[Launch]]:
    """Within it launches on CPU tensors are recorded, each kind once, and leave their outputs unset."""
    import importlib

    kernels = importlib.import_module(KERNELS)
    launches: list[Launch] = []

    def record(launch: Launch) -> None:
        if launch not in launches:
            launches.append(launch)

    stand_in: Any = _Recorder(kernels, record)
    sys.modules[KERNELS] = stand_in
    try:
        yield launches
    finally:
        sys.modules[KERNELS] = kernels


def has_assembler() -> bool:
    """True if Triton comes with the assembler for NVIDIA's GPUs."""
    import triton

    return (Path(triton.__file__).parent / "backends/nvidia/bin/ptxas").exists()


def compiled(launch: Launch, capability: int) -> Any:
    """The compiled kernel, for a GPU of this compute capability (80 is 8.0)."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(importlib.import_module(KERNELS), launch.name)
    names = [name for name, _ in launch.signature]
    source = ASTSource(
        fn=function,
        signature=dict(launch.signature),
        constexprs={(names.index(name),): value for name, value in launch.constants},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in launch.divisible},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(launch.options))
