"""What is to be loaded, from a preset or two names: revisions, and how each model is held."""

import pytest
import torch

import specdec_core as sd
from specdec_core.loading.plan import LoadOptions, plan_pair

TWO = {"target": "owner/large", "drafter": "owner/small"}


@pytest.fixture
def on_cuda(monkeypatch):
    """A machine with one GPU, as far as a plan asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def held_as(plan) -> tuple[str, str]:
    return plan.target.quantization, plan.drafter.quantization


def test_each_model_has_a_revision_of_its_own():
    plan = plan_pair(LoadOptions(**TWO, revision="v1", drafter_revision="v2", device="cpu"))
    assert (plan.target.revision, plan.drafter.revision) == ("v1", "v2")
    assert plan_pair(LoadOptions(**TWO, revision="v1", device="cpu")).drafter.revision is None


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, ("none", "none")),
        ({"quantization": "int8"}, ("int8", "int8")),
        ({"drafter_quantization": "nf4"}, ("none", "nf4")),
        ({"quantization": "nf4", "drafter_quantization": "none"}, ("nf4", "none")),
    ],
)
def test_two_names_are_held_as_asked_for_the_drafter_on_its_own_if_that_is_said(on_cuda, options, wanted):
    assert held_as(plan_pair(LoadOptions(**TWO, **options))) == wanted


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, ("nf4", "nf4")),
        ({"quantization": "none"}, ("none", "none")),
        ({"drafter_quantization": "none"}, ("nf4", "none")),
        ({"quantization": "none", "drafter_quantization": "nf4"}, ("none", "nf4")),
    ],
)
def test_what_is_asked_for_goes_before_what_a_preset_says(on_cuda, options, wanted):
    assert held_as(plan_pair(LoadOptions("qwen3", **options))) == wanted


def test_on_a_cpu_a_preset_is_held_as_it_says_for_one():
    assert held_as(plan_pair(LoadOptions("qwen3", device="cpu"))) == ("none", "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "owner/large", "drafter_revision": "v2"}, "no drafter. Name one"),
        ({"target": "owner/large", "drafter_quantization": "nf4"}, "no drafter. Name one"),
        ({**TWO, "quantization": "int4"}, "quantization must be none, nf4, int8, not 'int4'"),
        ({**TWO, "drafter_quantization": "4"}, "drafter_quantization must be none, nf4, int8, not '4'"),
        ({"preset": "qwen3", "drafter_revision": "v2"}, "names its own drafter and revisions"),
    ],
)
def test_what_does_not_go_together_is_refused(options, said):
    with pytest.raises(sd.SettingsError, match=said):
        sd.Engine.load(**options, device="cpu")


@pytest.mark.parametrize(
    ("device", "spread"), [(None, "gpus"), ("cuda", "gpus"), ("cuda:1", "no"), ("auto", "anywhere")]
)
def test_a_target_may_be_split_where_no_single_device_was_named(monkeypatch, on_cuda, device, spread):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert plan_pair(LoadOptions(**TWO, device=device)).spread == spread


def test_one_gpu_is_not_split_unless_that_is_asked_for(on_cuda):
    assert plan_pair(LoadOptions(**TWO)).spread == "no"
