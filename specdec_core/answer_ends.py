"""Which ids end an answer: those that the model's configuration names, and the one that closes its turn.

Some chat models (Gemma as first published) name only <eos>, though their template closes an answer with another
token; what follows that one is no part of the answer.
"""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARK = "an answer"


def answer_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends an answer."""
    return _configured(model) | _turn_end(tokenizer)


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
