"""The check that a function can be captured. The meta device stands in for another one."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from specdec_core.runners.host_reads import HostReadError, NoHostReads

CPU, META = torch.device("cpu"), torch.device("meta")
X = torch.tensor([1.0, -2.0, 3.0, 0.0])
MASK = X > 0
COUNTS = torch.tensor([1, 2, 1, 0])
ON_META = torch.empty(4, device=META)
STATES = torch.empty(1, 1, 2, 4, device=META)

WAITS = {
    "item": lambda: X[0].item(),
    "a number of a tensor": lambda: float(X[1]),
    "a branch": lambda: 1 if X[0] > 0 else 2,
    "the largest in Python": lambda: max(X),
    "nonzero": lambda: X.nonzero(),
    "argwhere": lambda: torch.argwhere(X),
    "where with a condition alone": lambda: torch.where(MASK),
    "masked_select": lambda: X.masked_select(MASK),
    "reading by a mask": lambda: X[MASK],
    "writing by a mask": lambda: X.clone().__setitem__(MASK, X[:2]),
    "an index on the device": lambda: X[COUNTS[0]],
    "repeat_interleave": lambda: X.repeat_interleave(COUNTS),
    "unique": lambda: X.unique(),
    "equal": lambda: X.equal(X),
    "allclose": lambda: torch.allclose(X, X),
    "split at positions on the device": lambda: X.tensor_split(COUNTS),
}
COPIES = {
    "to": lambda: X.to(META),
    "copy_": lambda: ON_META.copy_(X),
    "copy_ of one number": lambda: ON_META.copy_(torch.tensor(1.0)),
    "a tensor of values": lambda: torch.tensor([1.0, 2.0], device=META),
    "new_tensor": lambda: ON_META.new_tensor(3.0),
    "where with a number on the CPU": lambda: torch.where(ON_META > 0, ON_META, torch.tensor(0.0)),
    "indices on the CPU": lambda: ON_META[torch.tensor([0, 1])],
}
CAPTURABLE = {
    "arithmetic with a number": lambda: ON_META * 2 + 1,
    "arithmetic with a number on the CPU": lambda: ON_META + torch.tensor(1.0),
    "a product": lambda: torch.nn.functional.linear(ON_META[None], torch.empty(3, 4, device=META)),
    "attention": lambda: scaled_dot_product_attention(STATES, STATES, STATES),
    "where with a number": lambda: torch.where(ON_META > 0, ON_META, 0.0),
    "masked_fill": lambda: ON_META.masked_fill(ON_META > 0, 0.0),
    "writing one number by a mask": lambda: ON_META.clone().index_put_((ON_META > 0,), torch.tensor(1.0)),
    "indices on the device": lambda: ON_META[torch.empty(2, dtype=torch.int64, device=META)],
    "a copy on the device": lambda: ON_META.clone().copy_(ON_META).to(torch.bfloat16),
    "values of the CPU": lambda: X.nonzero() if X[0].item() else X[MASK],
    "a factory": lambda: torch.arange(3, device=META) + torch.zeros(3, device=META),
    "repeat_interleave of a known length": lambda: ON_META.repeat_interleave(
        torch.empty(4, dtype=torch.int64, device=META), output_size=6
    ),
}


@pytest.mark.parametrize("name", WAITS)
@torch.inference_mode()
def test_what_waits_for_a_value_is_refused(name):
    with pytest.raises(HostReadError, match="waits for the host"), NoHostReads(CPU):
        WAITS[name]()


@pytest.mark.parametrize("name", COPIES)
@torch.inference_mode()
def test_what_copies_between_devices_is_refused(name):
    with pytest.raises(HostReadError, match=r"copies between cpu and meta|made of values"), NoHostReads(META):
        COPIES[name]()


@pytest.mark.parametrize("name", CAPTURABLE)
@torch.inference_mode()
def test_what_stays_on_the_device_passes(name):
    with NoHostReads(META):
        CAPTURABLE[name]()


@torch.inference_mode()
def test_results_are_those_without_the_check():
    def function() -> torch.Tensor:
        return torch.where(MASK, X.softmax(-1), 0.5)[COUNTS].cumsum(-1)

    with NoHostReads(CPU):
        got = function()
    torch.testing.assert_close(got, function())
