"""Distillation: the loss, and documents that the target writes itself."""

import copy
import random
from typing import Any

import torch
from transformers import LlamaForCausalLM

from .documents import IGNORED, Document, DocumentWriter

TEMPERATURE = 0.8  # at which people will mostly sample, so at which drafts are to be accepted


def overlap(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return the acceptance probability of a draft from q under p, sum_x min(p(x), q(x)):
    `[rows, vocab]` -> `[rows]`.

    Leviathan et al. 2023, Corollary 3.6.
    """
    return torch.minimum(p, q).sum(-1)


def distillation_loss(
    target: LlamaForCausalLM, drafter: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """KL(p || q) at temperature 1 plus the share of drafts rejected at TEMPERATURE, over learned tokens."""
    learned = (labels[:, 1:] != IGNORED).float()
    with torch.no_grad():
        target_logits = target(input_ids=ids, use_cache=False).logits[:, :-1].float()
    logits = drafter(input_ids=ids, use_cache=False).logits[:, :-1].float()
    log_p, log_q = target_logits.log_softmax(-1), logits.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    rejected = 1 - overlap((target_logits / TEMPERATURE).softmax(-1), (logits / TEMPERATURE).softmax(-1))
    return ((divergence + rejected) * learned).sum() / learned.sum()


@torch.inference_mode()
def sample_answers(
    target: LlamaForCausalLM, prompts: list[list[int]], temperature: float, most_tokens: int = 320
) -> list[Document]:
    """Sample the target's answers to `prompts`, all rows at once; temperature 0 is greedy.

    An answer that `most_tokens` cuts short is kept as it is.
    """
    config: Any = target.config
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), config.pad_token_id)
    for row, prompt in zip(ids, prompts, strict=True):
        row[width - len(prompt) :] = torch.tensor(prompt)
    drawing = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    # In bfloat16 with plain attention many rows at one token a step are four times as fast as otherwise.
    author: Any = copy.deepcopy(target)
    author = author.to(torch.bfloat16).eval()
    author.set_attn_implementation("eager")
    mask = ids != config.pad_token_id
    texts = author.generate(ids, attention_mask=mask, max_new_tokens=most_tokens, **drawing)
    documents = []
    for prompt, text in zip(prompts, texts[:, width:].tolist(), strict=True):
        if config.eos_token_id in text:
            text = text[: text.index(config.eos_token_id) + 1]
        documents.append(Document(prompt + text, [False] * len(prompt) + [True] * len(text)))
    return documents


def draw_prompts(writer: DocumentWriter, count: int, rng: random.Random) -> list[list[int]]:
    """Draw requests for random stories: ids up to where the answer begins."""
    documents = [writer.conversation([story], rng) for story in rng.choices(writer.stories, k=count)]
    return [document.ids[: document.learned.index(True)] for document in documents]
