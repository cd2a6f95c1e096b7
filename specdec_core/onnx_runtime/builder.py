"""Construction of an ONNX graph: nodes and constants by their names.

Large constants stay outside of the graph, in the memory of torch's tensors. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor

CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

_OPSET = 21
_IR_VERSION = 10


class GraphBuilder:
    """Nodes and constants of a graph under construction. Values are known by their names."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self._nodes: dict[str, NodeProto] = {}
        self._constants: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(self, name: str, dtype: int, shape: Iterable[int | str]) -> str:
        """Declare an input of the graph and return its name."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, name: str, dtype: int, shape: Iterable[int | str]) -> str:
        """Declare an output of the graph and return its name."""
        self._outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        """Return the name of a small constant that is part of the graph."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def weight(self, name: str, tensor: Tensor) -> str:
        """Return the name of a constant that stays outside of the graph, in the memory of `tensor`."""
        if name not in self._constants:
            array = tensor.detach().contiguous()
            self.weights[name] = array
            proto = TensorProto(name=name, dims=list(array.shape))
            proto.data_type = helper.np_dtype_to_tensor_dtype(array.numpy().dtype)
            proto.data_location = TensorProto.EXTERNAL
            proto.external_data.add(key="location", value="memory")
            self._constants[name] = proto
        return name

    def node(
        self,
        kind: str,
        inputs: Iterable[str],
        output: str,
        *,
        domain: str = "",
        also: Iterable[str] = (),
        **attributes: Any,
    ) -> str:
        """Add a node and return the name of its first output; `also` are its other outputs."""
        outputs = [output, *also]
        self._nodes[output] = helper.make_node(
            kind, list(inputs), outputs, name=output, domain=domain, **attributes
        )
        return output

    def has(self, name: str) -> bool:
        """Return True if there is a node of this name."""
        return name in self._nodes

    def model(self) -> ModelProto:
        """Return the finished graph."""
        graph = helper.make_graph(
            list(self._nodes.values()), "forward", self._inputs, self._outputs, list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
