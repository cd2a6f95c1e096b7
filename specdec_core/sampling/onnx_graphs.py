"""Graphs of speculative sampling without filters, for ONNX Runtime: a draw, and a whole verification.

They equal `host` and `verification` up to rounding. A draw finds a block of the vocabulary first, then an id
in it, with sums in float64, as in `host_draw`. Every node costs microseconds whatever its size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from onnx import TensorProto

from ..onnx_runtime.builder import GraphBuilder
from ..onnx_runtime.session import open_session
from .host_draw import block_size


@lru_cache
def draw_session(vocab: int) -> Any:
    """Return a session that draws from a row.

    logits [1, vocab], inverse_temperature [1], uniform float64 [1] → probs [1, vocab], id int64 [1, 1], and
    its probability `prob` [1, 1].
    """
    graph = _Sampling(vocab)
    probs = graph.softmax(1)
    graph.input("uniform", TensorProto.DOUBLE, [1])
    graph.draw(probs, "uniform", "id")
    graph.probability(probs, "id", "prob")
    return open_session(graph.model(), threads=1)


@lru_cache
def verification_session(vocab: int, one_hot: bool) -> Any:
    """Return a session that verifies one or more drafts, as `walk_rejection` does.

    Inputs: logits [drafts + 1, vocab], inverse_temperature [1], count int64 [1], the number of drafts, their
    ids int64 [drafts, 1] and probabilities q_ids [drafts, 1], uniforms float64 accept [drafts, 1] and
    residual [drafts + 1], and unless `one_hot` q [drafts + 1, vocab], whose last row has no meaning.

    Outputs: probs p [drafts + 1, vocab], p_ids [drafts, 1], accepted int64 [1], id int64 [1, 1], that of the
    target's token, its p `prob` and unless `one_hot` its q `q_prob`, [1, 1] each, and `total` float64 [1, 1],
    the sum of what it was drawn from: if that is 0, there is no residual, and the id has no meaning.
    """
    graph = _Sampling(vocab)
    probs = graph.softmax("rows")
    graph.input("ids", TensorProto.INT64, ["drafts", 1])
    graph.input("q_ids", TensorProto.FLOAT, ["drafts", 1])
    graph.input("accept", TensorProto.DOUBLE, ["drafts", 1])
    graph.input("residual", TensorProto.DOUBLE, ["rows"])
    graph.input("count", TensorProto.INT64, [1])
    graph.accept()
    row = graph.node("Gather", [probs, "accepted"], "row", axis=0)  # [1, vocab]
    rest = graph.rest_without_draft(row) if one_hot else graph.rest(row)
    graph.node("Where", ["any_rejected", rest, row], "weights")
    graph.node("Gather", ["residual", "accepted"], "uniform", axis=0)
    graph.draw("weights", "uniform", "id")
    graph.output("total", TensorProto.DOUBLE, [1, 1])
    graph.probability(row, "id", "prob")
    if not one_hot:
        graph.probability("q_row", "id", "q_prob")
    return open_session(graph.model(), threads=1)


class _Sampling(GraphBuilder):
    """A graph over rows of a vocabulary."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab = vocab

    def softmax(self, rows: int | str) -> str:
        """Add the inputs logits and inverse_temperature, and the output probs [rows, vocab]."""
        self.input("logits", TensorProto.FLOAT, [rows, self.vocab])
        self.input("inverse_temperature", TensorProto.FLOAT, [1])
        self.output("probs", TensorProto.FLOAT, [rows, self.vocab])
        scaled = self.node("Mul", ["logits", "inverse_temperature"], "scaled")
        return self.node("Softmax", [scaled], "probs", axis=-1)

    def accept(self) -> None:
        """Add p_ids, `any_rejected`, and `accepted`, the number of drafts before the first rejected one."""
        self.output("p_ids", TensorProto.FLOAT, ["drafts", 1])
        self.output("accepted", TensorProto.INT64, [1])
        self.node("GatherElements", ["probs", "ids"], "p_ids", axis=1)
        p = self.node("Cast", ["p_ids"], "p_exact", to=TensorProto.DOUBLE)
        q = self.node("Cast", ["q_ids"], "q_exact", to=TensorProto.DOUBLE)
        bar = self.node("Mul", ["accept", q], "bar")
        passes = self.node("Less", [bar, p], "passes")  # so that NaN is rejected
        passes = self.node("Cast", [passes], "passes_01", to=TensorProto.INT32)
        after = self.constant("after_the_last", [[0]], np.int32)
        ends = self.node("Concat", [passes, after], "ends", axis=0)
        self.node("ArgMin", [ends], "accepted", axis=0, keepdims=0)  # the first of equal ones
        self.node("Less", ["accepted", "count"], "any_rejected")

    def rest(self, row: str) -> str:
        """max(row − q, 0) [1, vocab] at the rejected draft, whose q is `q_row`."""
        self.input("q", TensorProto.FLOAT, ["rows", self.vocab])
        q_row = self.node("Gather", ["q", "accepted"], "q_row", axis=0)
        return self.node("Relu", [self.node("Sub", [row, q_row], "differences")], "rest")

    def rest_without_draft(self, row: str) -> str:
        """row [1, vocab] but for a zero at the rejected draft, which is all of its q."""
        last = self.node("Sub", ["count", self.constant("one", [1], np.int64)], "last_draft")
        tested = self.node("Min", ["accepted", last], "tested")
        draft = self.node("Gather", ["ids", tested], "draft", axis=0)
        zero = self.constant("nothing", [[0]], np.float32)
        return self.node("ScatterElements", [row, draft, zero], "rest", axis=1)

    def draw(self, weights: str, uniform: str, name: str) -> None:
        """Add the output `name` int64 [1, 1], drawn by the inverse CDF of weights [1, vocab], and `total`."""
        size = block_size(self.vocab)
        blocks = -(-self.vocab // size)
        self.output(name, TensorProto.INT64, [1, 1])
        if blocks * size > self.vocab:
            pads = self.constant("pads", [0, 0, 0, blocks * size - self.vocab], np.int64)
            weights = self.node("Pad", [weights, pads], "padded")
        exact = self.node("Cast", [weights], "exact", to=TensorProto.DOUBLE)
        shape = self.constant("apart", [1, blocks, size], np.int64)
        apart = self.node("Reshape", [exact, shape], "blocks")
        sums = self.node("ReduceSum", [apart, self.constant("inside", [2], np.int64)], "sums", keepdims=0)
        cdf = self.node("CumSum", [sums, self.constant("over_blocks", 1, np.int32)], "cdf")
        self.node("Gather", [cdf, self.constant("last", [blocks - 1], np.int64)], "total", axis=1)
        at = self.node("Mul", ["total", uniform], "at")
        # The first block whose sum with those before is above it.
        beyond = self.node("Sign", [self.node("Sub", [cdf, at], "beyond_at")], "beyond")
        block = self.node("ArgMax", [beyond], "block", axis=1, keepdims=0)  # [1]
        after = self.node("Sub", [self.node("Gather", [cdf, block], "up_to_block", axis=1), at], "after_at")
        weights = self.node("Gather", [apart, block], "in_block", axis=1)  # [1, 1, size]
        axis = self.constant("over_block", 2, np.int32)
        rest = self.node("CumSum", [weights, axis], "rest_of_block", reverse=1)
        # The last id with more than that from it on: it has a weight, else those after it would have as much.
        # Where rounding left none, the last with as much as the whole block.
        whole = self.node("Gather", [rest, self.constant("first", [0], np.int64)], "all_of_block", axis=2)
        enough = self.node("Min", [after, whole], "wanted")
        behind = self.node("Sign", [self.node("Sub", [rest, enough], "more")], "behind")
        place = self.node("ArgMax", [behind], "place", axis=2, keepdims=0, select_last_index=1)  # [1, 1]
        start = self.node("Mul", [block, self.constant("size", [size], np.int64)], "start")
        self.node("Add", [place, start], name)

    def probability(self, rows: str, token: str, name: str) -> None:
        """Add the output `name` [1, 1]: that of the id `token` [1, 1] in rows [1, vocab]."""
        self.output(name, TensorProto.FLOAT, [1, 1])
        self.node("GatherElements", [rows, token], name, axis=1)
