"""Assembly of a loaded pair from a plan: gate, memory, download, weights, output layers.

The gate comes first, so that a pair it refuses costs nothing: neither a download nor the pair loaded before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from huggingface_hub import constants
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import IncompatiblePairError, LoadError
from ..gate.check import check_pair
from ..gate.logit_width import check_logit_width
from ..gate.report import PairReport
from ..hub.adapters import require_mergeable
from ..hub.download import Download, downloaded_folder, fetch, plan_download, require_disk_space
from ..hub.file_names import gguf_of
from ..hub.gguf_files import forget_headers, is_gguf
from ..hub.gguf_remote import hub_file
from ..out_of_memory import release_memory
from ..pair import LoadedPair
from ..progress import Watch
from ..runners.short_head import frequent_ids, shorten_head
from ..settings import Settings
from ..text.template_probe import probe_template
from ..units import gigabytes
from .answer_ends import answer_ends
from .engine_info import EngineInfo, describe
from .failures import raise_load_failure
from .model_defaults import model_defaults
from .pair_runners import choose_runners, without_optional_quantizations
from .placement import Placement, plan_placement
from .plan import PairPlan
from .weights import ModelSource, load_model, with_gguf_file, with_stored_quantization

_CANCEL_POLL_S = 0.2
"""Seconds between two polls for cancellation while a load waits for another one."""

# transformers sets process-wide state while it builds a model, and two loads would count on the same memory.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class _GatePass:
    """A report without failures, with the tokenizer and its width (highest id + 1) that it vouches for."""

    report: PairReport
    tokenizer: PreTrainedTokenizerBase
    tokenizer_width: int


@dataclass(frozen=True, slots=True)
class _ModelFiles:
    """The folder with each model's files, or its GGUF file, and the progress `fraction` so far.

    The place is None for a source that is local.
    """

    places: Mapping[ModelSource, str | None]
    fraction: float


@dataclass(frozen=True, slots=True)
class _Models:
    """The models of a pair with their weights; `drafter` is None for a target alone."""

    target: PreTrainedModel
    drafter: PreTrainedModel | None

    @property
    def present(self) -> list[PreTrainedModel]:
        """The target and, if any, the drafter."""
        return [self.target] if self.drafter is None else [self.target, self.drafter]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded pair with its description, the gate's report, and its default settings."""

    pair: LoadedPair
    info: EngineInfo
    report: PairReport
    settings: Settings


def load_pair(plan: PairPlan, watch: Watch, eager: str | None = None) -> Loaded:
    """Check, place, download and load a pair. A second load waits until the first one is done.

    `eager` is the reason to use eager runners, None to choose the fastest. Raises IncompatiblePairError,
    PairUncheckableError, LoadError, LoadCancelledError and any exception of `on_progress`; after an error
    nothing of the pair is in memory.
    """
    if not _one_at_a_time.acquire(blocking=False):
        watch.say("Waiting until another pair is loaded")
        while not _one_at_a_time.acquire(timeout=_CANCEL_POLL_S):
            watch.check()
    try:
        loaded = _load_pair(plan, watch, eager)
        release_memory()
        return loaded
    except Exception as error:
        raise_load_failure(plan, watch, error)
    finally:
        forget_headers()
        _one_at_a_time.release()


def _load_pair(plan: PairPlan, watch: Watch, eager: str | None) -> Loaded:
    if eager is not None:
        plan = without_optional_quantizations(plan)
    watch.say(_gate_step(plan.sources), 0.0)
    plan = _with_each(plan, with_gguf_file)
    gate = _pass_gate(plan)
    plan = _with_each(plan, partial(with_stored_quantization, device=plan.device))
    placement = _find_room(plan, watch)
    files = _download(plan.sources, watch)
    models = _load_models(plan, placement, files, watch)
    vocab_size = _checked_vocab_size(plan, gate, models)
    folder = plan.target.base if plan.target.gguf else files.places[plan.target] or plan.target.base
    eos_ids = answer_ends(folder, gate.tokenizer, probe_template(gate.tokenizer))
    _shorten_drafter_head(plan, gate, models, vocab_size, eos_ids)
    target, drafter = choose_runners(plan, models.target, models.drafter, placement, vocab_size, eager)
    pair = LoadedPair(
        target=target,
        drafter=drafter,
        tokenizer=gate.tokenizer,
        eos_ids=eos_ids,
        target_name=plan.target.model,
        drafter_name=plan.drafter.model if plan.drafter else "",
        gguf=_gguf_file(plan.target, files, folder),
    )
    defaults = model_defaults(folder)
    info = describe(plan, pair, placement, defaults.notes)
    return Loaded(pair, info, gate.report, defaults.under(plan.settings, plan.chosen_settings))


def _with_each(plan: PairPlan, read: Callable[[ModelSource], ModelSource]) -> PairPlan:
    """The plan with what `read` finds in the files of each model. Raises what it raises."""
    return replace(plan, target=read(plan.target), drafter=read(plan.drafter) if plan.drafter else None)


def _pass_gate(plan: PairPlan) -> _GatePass:
    """Check the pair by configurations and tokenizers. Raises IncompatiblePairError, PairUncheckableError."""
    report = check_pair(
        plan.target.model,
        plan.drafter.model if plan.drafter else None,
        target_revision=plan.target.revision,
        drafter_revision=plan.drafter.revision if plan.drafter else None,
        vocab_padding=plan.vocab_padding,
    )
    if not report.ok or report.tokenizer is None or report.tokenizer_width is None:
        raise IncompatiblePairError(report)
    return _GatePass(report, report.tokenizer, report.tokenizer_width)


def _gate_step(sources: list[ModelSource]) -> str:
    """The step in words, with what it may wait for."""
    step = "Checking configurations and tokenizers"
    remote = [source.base for source in sources if _is_remote(source)]
    return f"{step} of {' and '.join(remote)} on {constants.ENDPOINT}" if remote else step


def _find_room(plan: PairPlan, watch: Watch) -> Placement:
    """Choose devices with room for the pair.

    Raises LoadError if it fits nowhere, or has an adapter that cannot be merged into quantized or split
    weights.
    """
    watch.say("Comparing the memory it needs with what is free", 0.03)
    placement = plan_placement(plan.sources, plan.device, plan.spread, plan.max_memory)
    for source in plan.sources:
        if source.adapter is not None:
            is_split = placement.split is not None and source is plan.target
            require_mergeable(source.adapter, source.quantization_in_memory, is_split)
    return placement


def _download(sources: list[ModelSource], watch: Watch) -> _ModelFiles:
    """Download missing files of the models. Raises LoadError."""
    watch.say("Looking for the weights", 0.05)
    plans = {source: _planned(source) for source in sources}
    downloads = [download for download in plans.values() if download is not None]
    require_disk_space(downloads)
    total = sum(download.size_bytes for download in downloads)
    before = 0
    share = 0.55 if total else 0.0

    def report_bytes(download: Download, count: int) -> None:
        count = min(count, download.size_bytes)
        watch.say(
            f"Downloading {download.model}: {gigabytes(count)} of {gigabytes(download.size_bytes)}",
            0.05 + share * (before + count) / total,
        )

    places: dict[ModelSource, str | None] = {}
    for source, download in plans.items():
        if download is None:
            places[source] = downloaded_folder(source.base, source.base_revision)
            continue
        if download.missing:
            report_bytes(download, 0)
        places[source] = fetch(download, partial(report_bytes, download))
        before += download.size_bytes
    return _ModelFiles(places, fraction=0.1 + share)


def _planned(source: ModelSource) -> Download | None:
    """The download of a source; None for what is here. Raises LoadError."""
    if source.gguf is None:
        return plan_download(source.base, source.base_revision)
    remote = source.gguf.remote
    if source.gguf.path is not None or remote is None:
        return None
    download = plan_download(remote.repository, remote.pinned_revision, remote.file)
    return None if download is None else replace(download, revision=remote.revision)


def _is_remote(source: ModelSource) -> bool:
    if is_gguf(source.base):
        return hub_file(source.base) is not None
    return not Path(source.base).is_dir()


def _gguf_file(source: ModelSource, files: _ModelFiles, folder: str) -> str | None:
    """The GGUF file that the target is in, or the one beside its safetensors."""
    if source.gguf is not None:
        return source.gguf.path or files.places[source]
    return gguf_of(folder) if source.adapter is None else None


def _load_models(plan: PairPlan, placement: Placement, files: _ModelFiles, watch: Watch) -> _Models:
    """Load the weights of the target and, if any, of the drafter. Raises LoadError."""
    watch.say(f"Loading the target, {plan.target.model}", files.fraction)
    target = load_model(plan.target, placement.device, files.places[plan.target], placement.split)
    if plan.drafter is None:
        return _Models(target, None)
    fraction = files.fraction + 0.7 * (0.95 - files.fraction)
    watch.say(f"Loading the drafter, {plan.drafter.model}", fraction)
    place = files.places[plan.drafter]
    return _Models(target, load_model(plan.drafter, placement.device, place, target=target))


def _checked_vocab_size(plan: PairPlan, gate: _GatePass, models: _Models) -> int:
    """Return the width to cut logits to, checked against the loaded output layers.

    Raises IncompatiblePairError if their widths do not match each other or the tokenizer.
    """
    return check_logit_width(
        [_output_rows(model) for model in models.present],
        gate.tokenizer_width,
        plan.vocab_padding,
        target=plan.target.model,
        drafter=(plan.drafter or plan.target).model,
    )


def _output_rows(model: PreTrainedModel) -> int:
    """Return the rows of the output layer. Raises LoadError for a model without one."""
    head = model.get_output_embeddings()
    if head is None:
        raise LoadError(f"{type(model).__name__} has no output layer. Choose a decoder-only language model.")
    return head.weight.shape[0]


def _shorten_drafter_head(
    plan: PairPlan, gate: _GatePass, models: _Models, vocab_size: int, eos_ids: frozenset[int]
) -> None:
    """Give the drafter, in place, an output layer for the most frequent tokens only, if the plan wants it."""
    if models.drafter is None or plan.drafter_vocabulary is None:
        return
    sample_ids: list[int] = []
    if plan.drafter_vocabulary_text is not None:
        sample_ids = gate.tokenizer.encode(Path(plan.drafter_vocabulary_text).read_text(encoding="utf-8"))
    # Templates and answers have control tokens that text has not: ends of turns, of thoughts, of tool calls.
    always = eos_ids | set(gate.tokenizer.added_tokens_decoder)
    shorten_head(models.drafter, frequent_ids(plan.drafter_vocabulary, vocab_size, always, sample_ids))
