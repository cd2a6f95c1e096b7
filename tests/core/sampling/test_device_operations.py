"""Number of operations of a draft and of a verification, each of which is a node of a CUDA graph or more."""

import pytest
import torch

from specdec_core.sampling import DeviceSampling, sampler_for
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.settings import Settings
from tests.support.operations import operations

VOCAB = 20_000
BOUNDS = {
    "greedy": ({"temperature": 0}, 4, 3),
    "rejection": ({}, 12, 28),
    "rejection, min-p": ({"min_p": 0.1}, 14, 30),
    "rejection, filtered": ({"top_k": 50, "top_p": 0.9, "min_p": 0.01}, 25, 60),
    "greedy, repetition": ({"temperature": 0, "repetition_penalty": 1.2}, 20, 18),
    "rejection, bias": ({"logit_bias": {3: 1.0}}, 14, 30),
    "rejection, typical-p": ({"typical_p": 0.9}, 32, 48),
    "coupled": ({"verification": "coupled"}, 12, 14),
    "coupled, filtered": ({"verification": "coupled", "top_p": 0.9}, 27, 46),
}
"""Settings, and the most operations of a draft and of the verification of five rows."""


@pytest.mark.parametrize("rule", BOUNDS)
@torch.inference_mode()
def test_a_step_takes_few_operations(rule):
    settings, most_of_draft, most_of_verification = BOUNDS[rule]
    sampling = DeviceSampling(torch.device("cpu"), VOCAB)
    sampler = sampler_for(Settings(**{"temperature": 1.0, **settings}), KeyedNoise(1), sampling)
    logits = 4 * torch.randn(5, VOCAB).bfloat16()
    assert operations(lambda: sampler.start_round([3], 4))["copy_"] <= 2
    draft = sampler.draft(3)
    assert operations(lambda: draft(logits[:1])).total() <= most_of_draft
    assert operations(lambda: sampler.verify(logits)).total() <= most_of_verification
