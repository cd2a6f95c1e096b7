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

from ..errors import IncompatiblePairError, LoadError
from ..gate.check import check_pair
from ..gate.logit_width import check_logit_width
from ..gate.report import PairReport
from ..hub.adapters import require_mergeable
from ..hub.download import Download, downloaded_folder, fetch, plan_download, require_disk_space
from ..hub.errors import first_line
from ..pair import LoadedPair
from ..progress import Watch
from ..runners import runner_for
from ..runners.short_head import frequent_ids, shorten_head
from ..text.chat_template import answer_ends, takes_system_message
from ..units import gigabytes
from .placement import place
from .plan import PairPlan
from .weights import (
    ModelSource,
    Split,
    dtype_for,
    load_model,
    out_of_memory,
    release_memory,
    require_quantizable,
)

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
    place_of = place(sources, plan.device, plan.spread, plan.max_memory)
    split = place_of if isinstance(place_of, Split) else None
    device = split.last if split else place_of
    for source in sources:
        if source.adapter is not None:
            require_mergeable(
                source.adapter, source.quantization, split is not None and source is plan.target
            )
    folders, done = _download(sources, watch)
    say(f"Loading the target, {plan.target.model}", done)
    target_model = load_model(plan.target, device, folders[plan.target], split)
    drafter_model = None
    if plan.drafter is not None:
        say(f"Loading the drafter, {plan.drafter.model}", done + 0.7 * (0.95 - done))
        drafter_model = load_model(plan.drafter, device, folders[plan.drafter])
    models = [model for model in (target_model, drafter_model) if model is not None]
    widths = [model.get_output_embeddings().weight.shape[0] for model in models]
    vocab_size = check_logit_width(
        widths,
        report.tokenizer_width,
        plan.vocab_padding,
        target=plan.target.model,
        drafter=plan.drafter.model if plan.drafter else plan.target.model,
    )
    ends = answer_ends(target_model, report.tokenizer)
    if drafter_model is not None and plan.drafter_vocabulary is not None:
        counted = ()
        if plan.drafter_vocabulary_text is not None:
            counted = report.tokenizer.encode(Path(plan.drafter_vocabulary_text).read_text(encoding="utf-8"))
        kept = frequent_ids(plan.drafter_vocabulary, vocab_size, ends, counted)
        shorten_head(drafter_model, kept)
    if split is None:
        target = runner_for(target_model, vocab_size=vocab_size, eager=eager)
    else:
        why = f"the target's layers lie on {split.places}"
        target = runner_for(target_model, vocab_size=vocab_size, eager=why, device=split.last)
    pair = LoadedPair(
        target=target,
        drafter=runner_for(drafter_model, vocab_size=vocab_size, eager=eager) if drafter_model else None,
        tokenizer=report.tokenizer,
        eos_ids=ends,
    )
    return pair, _describe(plan, pair, target_model, drafter_model, split), report


def _download(sources: list[ModelSource], watch: Watch) -> tuple[dict[ModelSource, str | None], float]:
    """Where each model's files are (None for what is a folder already), and the share of the whole work that
    is done then. Raises LoadError.
    """
    watch.say("Looking for the weights", 0.05)
    plans = {source: plan_download(source.base, source.base_revision) for source in sources}
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
            folders[source] = downloaded_folder(source.base, source.base_revision)
            continue
        if download.missing:
            arrived(download, 0)
        folders[source] = fetch(download, partial(arrived, download))
        before += download.size_bytes
    return folders, 0.1 + share


def _describe(
    plan: PairPlan,
    pair: LoadedPair,
    target: PreTrainedModel,
    drafter: PreTrainedModel | None,
    split: Split | None,
) -> EngineInfo:
    on_cuda = pair.target.device.type == "cuda"
    device = torch.cuda.get_device_name(pair.target.device) if on_cuda else "CPU"
    return EngineInfo(
        preset=plan.preset,
        title=plan.title,
        target=plan.target.model,
        drafter=plan.drafter.model if plan.drafter else None,
        device=f"{device} (target on {split.places})" if split else device,
        dtype=str(dtype_for(plan.device)).removeprefix("torch."),
        target_quantization=plan.target.quantization,
        drafter_quantization=plan.drafter.quantization if plan.drafter else None,
        runner=pair.target.name,
        runner_reason=pair.target.reason,
        context_length=pair.context_length,
        target_parameters=target.num_parameters(),
        drafter_parameters=drafter.num_parameters() if drafter is not None else None,
        memory_bytes=sum(m.get_memory_footprint() for m in (target, drafter) if m is not None),
        takes_system_message=takes_system_message(pair.tokenizer)
        if plan.takes_system_message is None
        else plan.takes_system_message,
    )
