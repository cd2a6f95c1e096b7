"""Walk over transformers' causal language models: which of them are paired, served alone or refused, and
whether the answers of a tiny random model of each are those of transformers' own generate.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    __version__,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..engine import Engine
from ..errors import SettingsError, quote
from ..runners import serving
from ..settings import Settings
from ..trace import first_difference
from .noise import noisy_copy
from .shapes import word_tokenizer
from .tiny_configs import tiny_config

VOCAB = 512
NEW_TOKENS = 96
FEWEST_DISTINCT = 20
"""Distinct tokens of an answer; a model that repeats itself would agree with anything."""

_PROMPT_TOKENS = 490
"""The answer crosses the first bucket of 512 positions, and all windows."""
_WEIGHT_SCALES = (4.0, 2.0, 8.0, 1.0, 16.0)
"""Random weights are scaled up until the answer has enough distinct tokens."""
_NOISE = 0.1
"""Noise on the drafter's weights, so that some of its drafts are wrong."""

Parity = Literal["equal", "differs", "not shown"]


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """One model type: the level that it is served at with the reason against a higher one, and the proof.

    `parity` compares the answers with gamma 0 and, for a pair, 4 with generate's; `note` is why it is not
    shown, or what differed.
    """

    model_type: str
    level: Literal["pair", "alone", "refused", "unknown"]
    reason: str | None
    runner: str | None
    parity: Parity
    note: str | None = None


def run(model_types: Sequence[str]) -> int:
    """Walk, and print Markdown. Return the exit code: 1 if the answers of a model type differ.

    Raises SettingsError for a type that transformers has no causal language model for.
    """
    if unknown := sorted(set(model_types) - set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)):
        raise SettingsError(
            f"transformers {__version__} has no causal language model of type {', '.join(unknown)}. Leave "
            "the types out to walk over all that it has."
        )
    results = []
    for model_type in model_types or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        with tempfile.TemporaryDirectory(prefix="specdec-family-") as folder:
            results.append(examine(model_type, Path(folder)))
        print(f"{model_type}: {results[-1].parity}", file=sys.stderr)
    print("\n".join(table_lines(results)))
    return 1 if any(result.parity == "differs" for result in results) else 0


def table_lines(results: Sequence[FamilyResult]) -> list[str]:
    """Return the results as lines of Markdown, by the level that the types are served at."""
    equal = [result for result in results if result.parity == "equal"]
    lines = [f"transformers {__version__}: {len(results)} model types, {len(equal)} with equal answers."]
    pairs = [result for result in equal if result.level == "pair"]
    for runner in sorted({str(result.runner) for result in pairs}):
        types = [result.model_type for result in pairs if result.runner == runner]
        lines += ["", f"**In pairs, {runner} on a CPU** ({len(types)}): {', '.join(types)}."]
    sections = {
        "Alone, equal answers": [result for result in equal if result.level == "alone"],
        "Refused": [result for result in results if result.level == "refused"],
        "Not shown": [result for result in results if result.parity != "equal" and result.level != "refused"],
    }
    for title, listed in sections.items():
        if listed:
            lines += ["", f"| {title} ({len(listed)}) | reason |", "|---|---|"]
            lines += [f"| {result.model_type} | {result.note or result.reason} |" for result in listed]
    return lines


def examine(model_type: str, folder: Path) -> FamilyResult:
    """Examine one model type, with models that are saved to and loaded from `folder`."""
    try:
        config = tiny_config(model_type, VOCAB)
    except Exception as error:  # of a type whose configuration has rules that are not known here
        return FamilyResult(model_type, "unknown", None, None, "not shown", quote(error))
    verdict = serving(config)
    if verdict.level == "refused":
        return FamilyResult(model_type, "refused", verdict.reason, None, "not shown")
    try:
        runner, parity, note = _parity(config, verdict.level == "pair", folder)
    except Exception as error:  # of transformers' generate or of the engine
        runner, parity, note = None, "not shown", quote(error)
    return FamilyResult(model_type, verdict.level, verdict.reason, runner, parity, note)


def _parity(config: PreTrainedConfig, paired: bool, folder: Path) -> tuple[str, Parity, str | None]:
    """The runner, and whether its answers are generate's."""
    prompt_ids = torch.randint(3, VOCAB, (1, _PROMPT_TOKENS), generator=torch.Generator().manual_seed(1))
    prompt = " ".join(f"w{token}" for token in prompt_ids[0].tolist())
    most = 0
    for scale in _WEIGHT_SCALES:
        model = random_model(config, scale)
        wanted = _generated(model, prompt_ids)
        most = max(most, len(set(wanted)))
        if len(set(wanted)) >= FEWEST_DISTINCT:
            break
    else:
        return "", "not shown", f"no random model puts out more than {most} distinct tokens"
    target = _save(model, config, folder / "target")
    drafter = _save(noisy_copy(model, _NOISE), config, folder / "drafter") if paired else None
    engine = Engine.load(target=target, drafter=drafter, device="cpu")
    try:
        for gamma in (0, 4) if paired else (0,):
            settings = Settings(temperature=0, gamma=gamma, max_new_tokens=NEW_TOKENS)
            got = engine.generate(prompt, settings).token_ids
            if (at := first_difference(got, wanted)) is not None:
                return engine.info.runner, "differs", f"with gamma {gamma} from token {at} on"
        return engine.info.runner, "equal", None
    finally:
        engine.unload()


@torch.no_grad()
def random_model(config: PreTrainedConfig, scale: float) -> PreTrainedModel:
    """Return a model whose random weights are scaled up, so that its distributions are far from uniform."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.is_floating_point():
            parameter.mul_(scale)
    # Nothing ends an answer.
    model.generation_config = GenerationConfig(pad_token_id=1)
    return model


def _generated(model: PreTrainedModel, prompt_ids: torch.Tensor) -> list[int]:
    generator: Any = model
    with torch.inference_mode():
        output = generator.generate(
            prompt_ids,
            attention_mask=torch.ones_like(prompt_ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
        )
    return output[0, prompt_ids.shape[1] :].tolist()


def _save(model: PreTrainedModel, config: PreTrainedConfig, folder: Path) -> str:
    model.save_pretrained(folder)
    # The model of a type with several parts has the text part's configuration.
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    word_tokenizer(VOCAB).save_pretrained(folder)
    return str(folder)
