"""Plans of loads from a preset or from two names: revisions, quantization and devices."""

import sys

import pytest
import torch

import specdec_core as sd
from specdec_core.loading.plan import LoadOptions, plan_pair

TWO = {"target": "owner/large", "drafter": "owner/small"}


@pytest.fixture
def on_cuda(monkeypatch):
    """Fakes a machine with one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def quantizations(plan) -> tuple[str, str]:
    return plan.target.quantization, plan.drafter.quantization


def test_each_model_has_a_revision_of_its_own():
    plan = plan_pair(LoadOptions(**TWO, revision="v1", drafter_revision="v2", device="cpu"))
    assert (plan.target.revision, plan.drafter.revision) == ("v1", "v2")
    assert plan_pair(LoadOptions(**TWO, revision="v1", device="cpu")).drafter.revision is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("none", "none")),
        ({"quantization": "int8"}, ("int8", "int8")),
        ({"drafter_quantization": "nf4"}, ("none", "nf4")),
        ({"quantization": "nf4", "drafter_quantization": "none"}, ("nf4", "none")),
    ],
)
def test_a_quantization_applies_to_both_models_unless_the_drafter_has_its_own(on_cuda, options, expected):
    assert quantizations(plan_pair(LoadOptions(**TWO, **options))) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("nf4", "nf4")),
        ({"quantization": "none"}, ("none", "none")),
        ({"drafter_quantization": "none"}, ("nf4", "none")),
        ({"quantization": "none", "drafter_quantization": "nf4"}, ("none", "nf4")),
    ],
)
def test_a_callers_quantization_overrides_the_presets(on_cuda, options, expected):
    assert quantizations(plan_pair(LoadOptions("qwen3", **options))) == expected


def test_on_a_cpu_a_preset_uses_its_quantizations_for_cpus():
    assert quantizations(plan_pair(LoadOptions("qwen3", device="cpu"))) == ("none", "none")
    assert quantizations(plan_pair(LoadOptions("stories", device="cpu"))) == ("none", "int8")


def test_on_a_gpu_a_preset_s_quantizations_for_cpus_are_not_used(on_cuda):
    assert quantizations(plan_pair(LoadOptions("stories"))) == ("none", "none")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_where_nothing_quantizes_on_a_cpu_a_preset_is_loaded_without(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert quantizations(plan_pair(LoadOptions("stories", device="cpu"))) == ("none", "none")
    assert not plan_pair(LoadOptions("stories", device="cpu")).drafter.optional
    chosen = plan_pair(LoadOptions("stories", device="cpu", drafter_quantization="int8"))
    assert not chosen.drafter.optional
    assert chosen.drafter.quantization == "int8"  # which is refused, with the reason, when it is loaded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "owner/large", "drafter_revision": "v2"}, "no drafter. Name one"),
        ({"target": "owner/large", "drafter_quantization": "nf4"}, "no drafter. Name one"),
        ({**TWO, "quantization": "int3"}, "quantization must be none, nf4, int8, int4, not 'int3'"),
        ({**TWO, "drafter_quantization": "4"}, "drafter_quantization must be none, nf4, int8, int4, not '4'"),
        ({"preset": "qwen3", "drafter_revision": "v2"}, "names its own drafter and revisions"),
    ],
)
def test_contradictory_options_are_refused(options, message):
    with pytest.raises(sd.SettingsError, match=message):
        sd.Engine.load(**options, device="cpu")


@pytest.mark.parametrize(
    ("device", "spread"), [(None, "gpus"), ("cuda", "gpus"), ("cuda:1", "no"), ("auto", "anywhere")]
)
def test_a_target_may_be_split_where_no_single_device_was_named(monkeypatch, on_cuda, device, spread):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert plan_pair(LoadOptions(**TWO, device=device)).spread == spread


def test_with_one_gpu_a_target_is_not_split_unless_the_device_is_auto(on_cuda):
    assert plan_pair(LoadOptions(**TWO)).spread == "no"


def test_an_empty_drafter_is_no_drafter():
    plan = plan_pair(LoadOptions(target="owner/large", drafter="", device="cpu"))
    assert plan.drafter is None
    assert plan.settings.gamma == 0
