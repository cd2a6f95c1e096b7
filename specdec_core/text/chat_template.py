"""What a chat template tells of a model: which ids end its answer, and whether a system message has a place.

Some chat models (Gemma as first published) name only <eos> as the end, though their template closes an answer
with another token; what follows that one is no part of the answer.
"""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARK = "a sentence to be found again"


def answer_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends an answer."""
    return _configured(model) | _turn_end(tokenizer)


def takes_system_message(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template shows the model a system message, rather than refuse it or leave it out."""
    messages = [{"role": "system", "content": _MARK}, {"role": "user", "content": "a question"}]
    try:
        return _MARK in tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # no template, or one that refuses
        return False


def _configured(model: PreTrainedModel) -> frozenset[int]:
    """From the generation config, else the model's config."""
    for config in (model.generation_config, model.config.get_text_config()):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The special token that the chat template puts right after an assistant's message, if it does."""
    messages = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": _MARK}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # no template, or one that wants other messages: an answer ends as configured
        return frozenset()
    after = text.rpartition(_MARK)[2].lstrip()
    specials = {token.content: at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = [token for token in specials if after.startswith(token)]
    return frozenset([specials[max(found, key=len)]] if found else [])
