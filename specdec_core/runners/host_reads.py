"""A dispatch mode that raises where a function waits for the host, which a CUDA graph cannot capture.

torch finds the same while it captures, but a capture that fails leaves its allocator in disorder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_COPIES = {_aten.copy_, _aten._to_copy, _aten.where, _aten.index, _aten.index_put, _aten.index_put_}
"""Operations that copy where their tensors lie on different devices. For others that is an error, or the
tensor is a number on the CPU that becomes an argument of the kernel.
"""
_WAITING_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_WRITES_BY_INDEX = {_aten.index_put, _aten.index_put_}


class HostReadError(RuntimeError):
    """A function cannot be captured: it reads a value of the device on the host, or copies between them."""


class NoHostReads(TorchDispatchMode):
    """Raises HostReadError before an operation that waits for the host to read values of `device`, has an
    output whose shape depends on values, or copies to or from another device. Copies out of pinned memory do
    not wait, but their source is not part of a graph.
    """

    supports_higher_order_operators = True

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or in its place those that it consists of."""
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.OpOverload):
            if func._can_decompose():
                with self:
                    return func.decompose(*args, **kwargs)
            self._check(func, args, kwargs)
        return func(*args, **kwargs)

    def _check(self, func: torch._ops.OpOverload, args: Any, kwargs: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device for tensor in tensors}
        packet = func.overloadpacket
        if packet in _COPIES:
            if packet is _aten._to_copy and kwargs.get("device") is not None:
                devices.add(_indexed(kwargs["device"]))
            if len(devices) > 1 and not _fills(packet, args):
                raise HostReadError(f"{func} copies between {' and '.join(sorted(map(str, devices)))}")
        if self._device not in devices:
            return
        if packet is _aten.detach_:
            # Of all forwards' operations only torch.tensor(values, device=...) does so, behind its copy.
            raise HostReadError(f"a tensor on {self._device} is made of values of the host")
        if packet in _WRITES_BY_INDEX:
            waits = _has_mask(args) and not _fills(packet, args)
        elif packet is _aten.index:
            waits = _has_mask(args)
        else:
            waits = not _WAITING_TAGS.isdisjoint(func.tags) and kwargs.get("output_size") is None
        if waits:
            raise HostReadError(f"{func} waits for the host to read values on {self._device}")


def _indices(args: Any) -> Iterator[Tensor]:
    return (index for index in args[1] if index is not None)


def _has_mask(args: Any) -> bool:
    """True for indices by a mask, whose number of elements is read on the host."""
    return any(index.dtype in (torch.bool, torch.uint8) for index in _indices(args))


def _fills(packet: Any, args: Any) -> bool:
    """True for a write by masks of one number on the CPU, which is a kernel's argument."""
    if packet not in _WRITES_BY_INDEX:
        return False
    value, masks = args[2], list(_indices(args))
    return (
        value.device.type == "cpu"
        and value.numel() == 1
        and all(mask.dtype in (torch.bool, torch.uint8) and mask.device == args[0].device for mask in masks)
    )


def _indexed(device: Any) -> torch.device:
    """The device with the number that it stands for, as tensors have it."""
    return torch.empty(0, device=device).device
