"""Fixtures of the runners' tests."""

from collections.abc import Iterator

import pytest

from tests.support.triton_kernels import interpreted_kernels


@pytest.fixture(scope="module")
def interpreter() -> Iterator[None]:
    """Triton's interpreter, for a module of tests."""
    # That of earlier versions does not work with NumPy 2.4.
    pytest.importorskip("triton", minversion="3.7")
    with interpreted_kernels():
        yield
