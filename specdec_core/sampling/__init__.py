"""Drafting and verification of a round: greedy, rejection or coupled, on the host or on a device.

A sampler lives for one answer. It sees logits and ids, never a model.
"""

from __future__ import annotations

from ..settings import Settings
from .base import Sampler, Verdict
from .device import DeviceSampler, DeviceSampling
from .filters import SamplingParams
from .host import CoupledSampler, GreedySampler, RejectionSampler
from .noise import KeyedNoise

__all__ = ["DeviceSampling", "Sampler", "Verdict", "sampler_for"]


def sampler_for(settings: Settings, noise: KeyedNoise, sampling: DeviceSampling | None = None) -> Sampler:
    """Return the sampler for an answer with these settings.

    It computes in the buffers of `sampling`, on their device; with None on the host.
    """
    params = SamplingParams.from_settings(settings)
    if sampling is not None:
        return DeviceSampler(sampling, params, settings.verification, noise)
    if params.greedy:
        return GreedySampler()
    if settings.verification == "coupled":
        return CoupledSampler(params, noise)
    return RejectionSampler(params, noise)
