"""Drafting and verification of a round: greedy, rejection or coupled, on the host or on a device.

A sampler lives for one answer. It sees logits and ids, never a model.
"""

from __future__ import annotations

from collections.abc import Collection

from ..onnx_runtime.packages import obstacle
from ..settings import Settings
from .base import Sampler, Verdict
from .device import DeviceSampler, DeviceSampling
from .filters import SamplingParams
from .host import CoupledSampler, GreedySampler, RejectionSampler
from .noise import KeyedNoise
from .onnx_rejection import OnnxRejectionSampler

__all__ = ["DeviceSampling", "Sampler", "Verdict", "sampler_for"]


def sampler_for(
    settings: Settings,
    noise: KeyedNoise,
    sampling: DeviceSampling | None = None,
    eos_ids: Collection[int] = (),
) -> Sampler:
    """Return the sampler for an answer with these settings; no draft follows one of `eos_ids`.

    It computes in the buffers of `sampling`, on their device; with None on the host.
    """
    params, alternatives = SamplingParams.from_settings(settings), settings.alternatives
    if sampling is not None:
        return DeviceSampler(sampling, params, settings.verification, noise, eos_ids, alternatives)
    if params.greedy:
        return GreedySampler(params, eos_ids, alternatives)
    if settings.verification == "coupled":
        return CoupledSampler(params, noise, eos_ids, alternatives)
    if params.unfiltered and obstacle() is None:
        return OnnxRejectionSampler(params, noise, eos_ids, alternatives)
    return RejectionSampler(params, noise, eos_ids, alternatives)
