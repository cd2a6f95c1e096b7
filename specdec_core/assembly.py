"""From a preset or two names to a loaded pair: the plan, the gate, the weights, in this order.

Nothing is given up for a pair that the gate refuses: it speaks before any weight is read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from .compatibility import check_pair
from .download import Download, downloaded_folder, fetch, plan_download, require_disk_space
from .errors import IncompatiblePairError, LoadError, SettingsError
from .hub_errors import first_line
from .loading import (
    ModelSource,
    Quantization,
    dtype_for,
    eos_ids,
    load_model,
    out_of_memory,
    release_memory,
    require_quantizable,
    resolve_device,
)
from .logit_width import check_logit_width
from .memory import require_memory
from .pair import LoadedPair
from .pair_report import PairReport
from .presets import Preset, get_preset
from .progress import Watch
from .runners import runner_for
from .runners.short_head import frequent_ids, shorten_head
from .settings import Settings
from .units import gigabytes

_WAITING_S = 0.2
"""Between two looks at whether a load that waits for another was called off."""

# transformers sets process-wide state while it makes a model, and two loads would count on the same memory.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is loaded, for people to see. `runner_reason` says why the runner is not the faster one."""

    preset: str | None
    title: str
    target: str
    drafter: str | None
    device: str
    dtype: str
    target_quantization: str
    drafter_quantization: str | None
    runner: str
    runner_reason: str | None
    context_length: int
    target_parameters: int
    drafter_parameters: int | None
    memory_bytes: int
    takes_system_message: bool


@dataclass(frozen=True, slots=True)
class PairPlan:
    """What is to be loaded, with a preset's facts filled in."""

    preset: str | None
    title: str
    target: ModelSource
    drafter: ModelSource | None
    device: torch.device
    vocab_padding: str
    drafter_vocabulary: int | None
    drafter_vocabulary_text: str | None
    takes_system_message: bool
    settings: Settings


def plan_pair(
    preset: str | Preset | None,
    target: str | None,
    drafter: str | None,
    revision: str | None,
    device: str | None,
    quantization: Quantization | None,
    vocab_padding: str | None,
) -> PairPlan:
    """Fills in a preset's facts, or makes a plan for two names. Raises SettingsError where both or neither
    are given, PresetError for an unknown preset, LoadError for a device that is not there.
    """
    resolved = resolve_device(device)
    if (preset is None) == (target is None):
        raise SettingsError("Name either a preset or a target (with or without a drafter), not both.")
    if preset is None:
        held_as = quantization or "none"
        return PairPlan(
            preset=None,
            title=f"{target} drafted by {drafter}" if drafter else target,
            target=ModelSource(target, revision, held_as),
            drafter=ModelSource(drafter, None, held_as) if drafter else None,
            device=resolved,
            vocab_padding=vocab_padding or "refuse",
            drafter_vocabulary=None,
            drafter_vocabulary_text=None,
            takes_system_message=True,
            settings=Settings() if drafter else Settings(gamma=0),
        )
    if drafter is not None or revision is not None:
        raise SettingsError("A preset names its own drafter and revisions; give a target to choose them.")
    chosen = get_preset(preset) if isinstance(preset, str) else preset

    def source(model) -> ModelSource:
        held_as = quantization or (chosen.cpu_quantization if resolved.type == "cpu" else model.quantization)
        return ModelSource(model.model, model.revision, held_as)

    return PairPlan(
        preset=chosen.name,
        title=chosen.title,
        target=source(chosen.target),
        drafter=source(chosen.drafter) if chosen.drafter else None,
        device=resolved,
        vocab_padding=vocab_padding or chosen.vocab_padding,
        drafter_vocabulary=chosen.drafter_vocabulary,
        drafter_vocabulary_text=chosen.drafter_vocabulary_text,
        takes_system_message=chosen.takes_system_message,
        settings=chosen.settings,
    )


def load_pair(
    plan: PairPlan, watch: Watch, eager: str | None = None
) -> tuple[LoadedPair, EngineInfo, PairReport]:
    """The gate, then room in memory and on disk, the weights, and the gate's last check on the real output
    layers. One pair at a time: whoever comes second waits. `eager` is why the runners have to be eager.

    Raises IncompatiblePairError, PairUncheckableError, LoadError, LoadCancelledError, and whatever the one
    who watches raises; nothing of the pair is in memory then.
    """
    if not _one_at_a_time.acquire(blocking=False):
        watch.say("Waiting until another pair is loaded")
        while not _one_at_a_time.acquire(timeout=_WAITING_S):
            watch.check()
    try:
        loaded = _load_pair(plan, watch, eager)
        release_memory()
        return loaded
    except Exception as error:
        release_memory(error)
        if out_of_memory(error):
            raise memory_ran_out(plan, error) from None
        raise
    finally:
        _one_at_a_time.release()


def memory_ran_out(plan: PairPlan, error: Exception) -> LoadError:
    """The error to raise where there was room for the weights, but not for computing with them."""
    return LoadError(
        f"{plan.title}: memory ran out on {plan.device} while the pair was made ready ({first_line(error)}). "
        "Choose a smaller quantization or pair, or free memory."
    )


def _load_pair(plan: PairPlan, watch: Watch, eager: str | None) -> tuple[LoadedPair, EngineInfo, PairReport]:
    say = watch.say
    say("Checking configurations and tokenizers", 0.0)
    report = check_pair(
        plan.target.model,
        plan.drafter.model if plan.drafter else plan.target.model,
        target_revision=plan.target.revision,
        drafter_revision=plan.drafter.revision if plan.drafter else plan.target.revision,
        vocab_padding=plan.vocab_padding,
    )
    if not report.ok:
        raise IncompatiblePairError(report)
    sources = [source for source in (plan.target, plan.drafter) if source is not None]
    for source in sources:
        require_quantizable(source, plan.device)
    say("Comparing the memory it needs with what is free", 0.03)
    require_memory(sources, plan.device)
    folders, done = _download(sources, watch)
    say(f"Loading the target, {plan.target.model}", done)
    target_model = load_model(plan.target, plan.device, folders[plan.target])
    drafter_model = None
    if plan.drafter is not None:
        say(f"Loading the drafter, {plan.drafter.model}", done + 0.7 * (0.95 - done))
        drafter_model = load_model(plan.drafter, plan.device, folders[plan.drafter])
    models = [model for model in (target_model, drafter_model) if model is not None]
    widths = [model.get_output_embeddings().weight.shape[0] for model in models]
    vocab_size = check_logit_width(
        widths,
        report.tokenizer_width,
        plan.vocab_padding,
        target=plan.target.model,
        drafter=plan.drafter.model if plan.drafter else plan.target.model,
    )
    if drafter_model is not None and plan.drafter_vocabulary is not None:
        counted = ()
        if plan.drafter_vocabulary_text is not None:
            counted = report.tokenizer.encode(Path(plan.drafter_vocabulary_text).read_text(encoding="utf-8"))
        kept = frequent_ids(plan.drafter_vocabulary, vocab_size, eos_ids(target_model), counted)
        shorten_head(drafter_model, kept)
    target, *drafter = (runner_for(model, vocab_size=vocab_size, eager=eager) for model in models)
    pair = LoadedPair(
        target=target,
        drafter=drafter[0] if drafter else None,
        tokenizer=report.tokenizer,
        eos_ids=eos_ids(target_model),
    )
    return pair, _describe(plan, pair, target_model, drafter_model), report


def _download(sources: list[ModelSource], watch: Watch) -> tuple[dict[ModelSource, str | None], float]:
    """Where each model's files are (None for what is a folder already), and the share of the whole work that
    is done then. Raises LoadError.
    """
    watch.say("Looking for the weights", 0.05)
    plans = {source: plan_download(source.model, source.revision) for source in sources}
    downloads = [download for download in plans.values() if download is not None]
    require_disk_space(downloads)
    total = sum(download.size_bytes for download in downloads)
    before = 0
    share = 0.55 if total else 0.0

    def arrived(download: Download, count: int) -> None:
        count = min(count, download.size_bytes)
        watch.say(
            f"Downloading {download.model}: {gigabytes(count)} of {gigabytes(download.size_bytes)}",
            0.05 + share * (before + count) / total,
        )

    folders: dict[ModelSource, str | None] = {}
    for source, download in plans.items():
        if download is None:
            folders[source] = downloaded_folder(source.model, source.revision)
            continue
        if download.missing:
            arrived(download, 0)
        folders[source] = fetch(download, partial(arrived, download))
        before += download.size_bytes
    return folders, 0.1 + share


def _describe(
    plan: PairPlan, pair: LoadedPair, target: PreTrainedModel, drafter: PreTrainedModel | None
) -> EngineInfo:
    on_cuda = plan.device.type == "cuda"
    return EngineInfo(
        preset=plan.preset,
        title=plan.title,
        target=plan.target.model,
        drafter=plan.drafter.model if plan.drafter else None,
        device=torch.cuda.get_device_name(plan.device) if on_cuda else "CPU",
        dtype=str(dtype_for(plan.device)).removeprefix("torch."),
        target_quantization=plan.target.quantization,
        drafter_quantization=plan.drafter.quantization if plan.drafter else None,
        runner=pair.target.name,
        runner_reason=pair.target.reason,
        context_length=pair.context_length,
        target_parameters=target.num_parameters(),
        drafter_parameters=drafter.num_parameters() if drafter is not None else None,
        memory_bytes=sum(m.get_memory_footprint() for m in (target, drafter) if m is not None),
        takes_system_message=plan.takes_system_message,
    )
