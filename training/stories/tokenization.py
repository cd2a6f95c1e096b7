"""The pair's one tokenizer: a byte-level BPE, the chat's control tokens and the chat template."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .phrases import FOLLOW_UPS, OPEN_REQUESTS, REQUESTS, SMALL_TALK

PAD, BEGIN, END, USER, ASSISTANT = "<|pad|>", "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"
CONTROL_TOKENS = [PAD, BEGIN, END, USER, ASSISTANT]
MAX_LENGTH = 2048

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '<|user|>' + (message['content'] | trim) + '<|end|>' }}
    {%- elif message['role'] == 'assistant' %}
        {{- '<|assistant|>' + (message['content'] | trim) + '<|end|>' }}
    {%- else %}
        {%- set problem = "This model was trained without " + message['role'] + " messages: " %}
        {{- raise_exception(problem + "send only user and assistant messages.") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""


def train_tokenizer(stories: list[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `size` entries, the control tokens and all 256 bytes among them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    requests = [line.format("it") for line in REQUESTS + FOLLOW_UPS + OPEN_REQUESTS]
    answers = [line for asked, answered in SMALL_TALK for line in asked + answered]
    tokenizer.train_from_iterator(stories + 20 * (requests + answers), trainer)
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def token_ids(tokenizer: PreTrainedTokenizerBase, *tokens: str) -> list[int]:
    """Return the ids of control tokens."""
    return [tokenizer.get_vocab()[token] for token in tokens]
