"""Properties of a model's chat template: the ids that end an answer, support for system messages.

Some chat models (Gemma as first published) name only <eos> as the end, though their template closes an answer
with another token. That token ends an answer too.
"""

from __future__ import annotations

from typing import cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARK = "a sentence to be found again"


def answer_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return every id that ends an answer: those of the configuration, and the template's end of turn."""
    return _configured(model) | _turn_end(tokenizer)


def takes_system_message(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if the template includes a system message, rather than refuse it or leave it out."""
    messages = [{"role": "system", "content": _MARK}, {"role": "user", "content": "a question"}]
    try:
        return _MARK in render(tokenizer, messages)
    except Exception:  # no template, or one that refuses
        return False


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool = False
) -> str:
    """Return the messages as the tokenizer's chat template writes them. Raises the template's own errors."""
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    return cast(str, text)  # its annotation does not depend on `tokenize`


def _configured(model: PreTrainedModel) -> frozenset[int]:
    """EOS ids of the generation config, or of the model's config where that has none."""
    for config in (model.generation_config, model.config.get_text_config()):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The special token, if any, that the chat template puts right after an assistant's message."""
    messages = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": _MARK}]
    try:
        text = render(tokenizer, messages)
    except Exception:  # no template, or one that wants other messages: an answer ends as configured
        return frozenset()
    after = text.rpartition(_MARK)[2].lstrip()
    specials = {token.content: at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    closing = [token for token in specials if after.startswith(token)]
    return frozenset([specials[max(closing, key=len)]] if closing else [])
