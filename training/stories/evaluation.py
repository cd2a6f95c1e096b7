"""Evaluation of the pair: held-out loss, acceptance, and answers to read."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .distillation import TEMPERATURE, overlap
from .documents import IGNORED, Document, stack

WORDS = """
    fox dog cat bear rabbit duck frog fish bird mouse lion horse cow pig monkey turtle boat car train
    truck bike plane ball doll kite balloon box hat book cake apple cookie tree flower garden river rain
    snow star moon sun house castle princess dragon robot doctor farmer
""".split()  # noqa: SIM905
READ_ALOUD = 10  # of the answers


@dataclass(frozen=True)
class Agreement:
    """Acceptance of drafts on the target's own text: equal choices at temperature 0, else sum_x min(p, q)."""

    temperature: float
    tokens: int
    acceptance: float


def learned_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of the learned tokens; `[rows, length, vocab]` and `[rows, length]`."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, documents: list[Document], rows: int = 16) -> float:
    """Mean cross-entropy in nats over the learned tokens of `documents`, each seen alone, `rows` at once."""
    model.eval()
    pad: Any = model.config.pad_token_id
    total, count = 0.0, 0
    by_length = sorted(documents, key=lambda document: len(document.ids))
    for at in range(0, len(by_length), rows):
        ids, labels = stack(by_length[at : at + rows], pad)
        learned = int((labels != IGNORED).sum())
        total += learned_loss(model(input_ids=ids, use_cache=False).logits, labels).item() * learned
        count += learned
    return total / count


@torch.inference_mode()
def agreement(
    target: LlamaForCausalLM,
    drafter: LlamaForCausalLM,
    answers: list[Document],
    temperature: float = TEMPERATURE,
) -> Agreement:
    """Acceptance of `drafter` at every position of the target's `answers`, wherever in a round it stands."""
    total, count = 0.0, 0
    for answer in answers:
        ids = torch.tensor([answer.ids])
        learned = torch.tensor(answer.learned[1:])
        p_logits = target(input_ids=ids, use_cache=False).logits[0, :-1][learned]  # [learned, vocab]
        q_logits = drafter(input_ids=ids, use_cache=False).logits[0, :-1][learned]
        if temperature == 0:
            accepted = (p_logits.argmax(-1) == q_logits.argmax(-1)).float()
        else:
            accepted = overlap((p_logits / temperature).softmax(-1), (q_logits / temperature).softmax(-1))
        total += accepted.sum().item()
        count += len(accepted)
    return Agreement(temperature, count, total / count)


def request_ids(tokenizer: PreTrainedTokenizerFast, word: str) -> list[int]:
    """The chat that asks for a story about `word`, up to where the answer begins."""
    about = f"an {word}" if word[0] in "aeiou" else f"a {word}"
    about = {"rain": "rain", "snow": "snow", "sun": "the sun", "moon": "the moon"}.get(word, about)
    messages = [{"role": "user", "content": f"Tell me a story about {about}."}]
    encoded: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return encoded["input_ids"]


def answer_text(tokenizer: PreTrainedTokenizerFast, answer: Document) -> str:
    """The answer's text without the request; its end as `<|end|>` where it has one."""
    return str(
        tokenizer.decode([token for token, new in zip(answer.ids, answer.learned, strict=True) if new])
    )
