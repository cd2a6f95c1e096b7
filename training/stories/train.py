"""Trains the embedded pair on TinyStories, in this order:

    python -m training.stories.train target   --work build/stories --minutes 65 [--corpus F] [--extra F]
    python -m training.stories.train drafter  --work build/stories --minutes 15 [--corpus F] [--extra F]
    python -m training.stories.train export   --work build/stories --into presets/stories
    python -m training.stories.train evaluate --from presets/stories [--corpus F] [--extra F]

Without --corpus the stories come from the Hub. On a machine whose cores others use, put nice before it.
"""

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from .distillation import TEMPERATURE, distillation_loss, draw_prompts, sample_answers
from .documents import Document, DocumentWriter, pack, read_stories
from .evaluation import READ_ALOUD, WORDS, agreement, answer_text, held_out_loss, learned_loss, request_ids
from .pair import export, make_drafter, make_target, round_weights
from .tokenization import PAD, token_ids, train_tokenizer
from .topics import TopicFinder
from .training import Batch, Plan, Trainer

VOCABULARY = 3072
MOST_STORIES = 300_000
HELD_OUT = 300
CHECKED = 128  # of the held-out stories, while training
PACKED_AT_ONCE = 12_000
TARGET_BATCH = 8192  # tokens
DRAFTER_BATCH = 4096
SAMPLED_AT_ONCE = 128
MOST_TOKENS = 500  # of an answer that is evaluated


@dataclass(frozen=True)
class Corpus:
    """The stories to learn from, those held out, and how their topics are found (by the former alone)."""

    training: list[str]
    held_out: list[str]
    finder: TopicFinder


def read_corpus(path: Path | None, extra: Path | None) -> Corpus:
    """The corpus at `path`, or a part of TinyStories from the Hub; `extra` is only learned from."""
    if path is None:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download("roneneldan/TinyStories", "TinyStories-train.txt", repo_type="dataset"))
    stories = read_stories(path, MOST_STORIES)
    random.Random(2023).shuffle(stories)
    training = stories[HELD_OUT:] + (read_stories(extra) if extra else [])
    return Corpus(training, stories[:HELD_OUT], TopicFinder(training))


def epochs(
    writer: DocumentWriter, batch_tokens: int, rng: random.Random, also: Sequence[Document] = ()
) -> Iterator[Batch]:
    """Yield batches without end, drawing new documents in each epoch; a third of all are `also`.

    Raises ValueError if the documents of an epoch do not fill one batch.
    """
    share = 2 * len(also) or PACKED_AT_ONCE
    (pad,) = token_ids(writer.tokenizer, PAD)
    while True:
        documents = list(writer.epoch(rng))
        rng.shuffle(documents)
        count = 0
        for at in range(0, len(documents), share):
            for batch in pack([*documents[at : at + share], *also], batch_tokens, pad, rng):
                count += 1
                yield batch
        if count == 0:
            raise ValueError(
                f"{len(documents)} documents do not fill a batch of {batch_tokens} tokens. Use a larger "
                "corpus."
            )


def held_out_documents(tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> list[Document]:
    """Each held-out story as the answer to one request, the same ones every time."""
    writer = DocumentWriter(tokenizer, corpus.held_out, corpus.finder)
    rng = random.Random(7)
    return [writer.conversation([story], rng) for story in writer.stories]


def train_target(options: argparse.Namespace) -> None:
    """The tokenizer, then the target, by its loss on the answers."""
    corpus = read_corpus(options.corpus, options.extra)
    tokenizer = train_tokenizer(corpus.training, VOCABULARY)
    tokenizer.save_pretrained(options.work / "tokenizer")
    writer = DocumentWriter(tokenizer, corpus.training, corpus.finder)
    held_out = held_out_documents(tokenizer, corpus)[:CHECKED]
    model = make_target(tokenizer, seed=1)
    pace = 1.0
    if options.source:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(options.source).float().state_dict())
        pace = 0.5  # weights that were trained to the end are not to be thrown about again

    def loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return learned_loss(model(input_ids=ids, use_cache=False).logits, labels)

    plan = Plan(options.minutes, muon_rate=0.004 * pace, adam_rate=0.003 * pace, weight_decay=0.3)
    trainer = Trainer(model, loss, plan, options.work / "target")
    if options.resume:
        trainer.resume()
    rng = random.Random(trainer.progress.step)
    trainer.run(epochs(writer, TARGET_BATCH, rng), lambda: held_out_loss(model, held_out))


def train_drafter(options: argparse.Namespace) -> None:
    """The drafter, by the target's distribution on the corpus and on text that the target writes first."""
    corpus = read_corpus(options.corpus, options.extra)
    tokenizer = AutoTokenizer.from_pretrained(options.work / "tokenizer")
    writer = DocumentWriter(tokenizer, corpus.training, corpus.finder)
    target = load_best(options.work / "target", make_target(tokenizer, seed=1))
    drafter = make_drafter(target, tokenizer)
    rng = random.Random(11)
    torch.manual_seed(11)
    kept = options.work / "written.pt"  # by the target
    if options.resume:
        written = [Document(*fields) for fields in torch.load(kept)]
    else:
        written = []
        while sum(len(document.ids) for document in written) < options.sampled_tokens:
            temperature = rng.choice([TEMPERATURE, 1.0])
            written += sample_answers(target, draw_prompts(writer, SAMPLED_AT_ONCE, rng), temperature)
        torch.save([(document.ids, document.learned) for document in written], kept)
    check = sample_answers(target, draw_prompts(writer, 32, rng), TEMPERATURE)
    print(f"the target wrote {len(written)} answers", flush=True)

    def loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return distillation_loss(target, drafter, ids, labels)

    plan = Plan(options.minutes, muon_rate=0.003, adam_rate=0.002, weight_decay=0.05, warmup_steps=20)
    trainer = Trainer(drafter, loss, plan, options.work / "drafter")
    if options.resume:
        trainer.resume()
    trainer.run(
        epochs(writer, DRAFTER_BATCH, rng, also=written),
        lambda: 1 - agreement(target, drafter.eval(), check).acceptance,
    )


def load_best(folder: Path, model: LlamaForCausalLM) -> LlamaForCausalLM:
    """`model` with the best weights of a training folder, rounded as they are exported."""
    model.load_state_dict(torch.load(folder / "best.pt", weights_only=True)["model"])
    return round_weights(model)


def export_pair(options: argparse.Namespace) -> None:
    """The best weights as two folders that transformers loads."""
    tokenizer = AutoTokenizer.from_pretrained(options.work / "tokenizer")
    target = load_best(options.work / "target", make_target(tokenizer, seed=1))
    drafter = load_best(options.work / "drafter", make_drafter(target, tokenizer))
    export(target, tokenizer, options.into / "target")
    export(drafter, tokenizer, options.into / "drafter")


def evaluate_pair(options: argparse.Namespace) -> None:
    """Prints the losses, the acceptance on held-out requests at two temperatures, and ten answers."""
    corpus = read_corpus(options.corpus, options.extra)
    tokenizer = AutoTokenizer.from_pretrained(options.source / "target")
    target, drafter = (
        cast(
            LlamaForCausalLM,
            AutoModelForCausalLM.from_pretrained(options.source / name, dtype=torch.float32).eval(),
        )
        for name in ("target", "drafter")
    )
    held_out = held_out_documents(tokenizer, corpus)
    for name, model in (("target", target), ("drafter", drafter)):
        size = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"{name}: {size:,} parameters, held-out loss {held_out_loss(model, held_out):.4f} nats per token"
        )
    prompts = [request_ids(tokenizer, word) for word in WORDS]
    for temperature in (0.0, TEMPERATURE):
        torch.manual_seed(5)
        answers = sample_answers(target, prompts, temperature, MOST_TOKENS)
        result = agreement(target, drafter, answers, temperature)
        texts = [answer_text(tokenizer, answer) for answer in answers]
        named = sum(
            bool(re.search(rf"\b{word}s?\b", text.lower())) for word, text in zip(WORDS, texts, strict=True)
        )
        ended = sum(answer.ids[-1] == tokenizer.eos_token_id for answer in answers)
        print(f"temperature {temperature}: acceptance {result.acceptance:.4f} over {result.tokens} tokens")
        print(f"  of {len(WORDS)} answers {named} name the word and {ended} end within {MOST_TOKENS} tokens")
    for word, text in random.Random(3).sample(list(zip(WORDS, texts, strict=True)), READ_ALOUD):
        print(f"\n> {word}\n{text}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    target = commands.add_parser("target", help="train the tokenizer and the target")
    target.set_defaults(run=train_target)
    target.add_argument(
        "--from", type=Path, dest="source", help="a trained target to begin with, at half the learning rates"
    )
    drafter = commands.add_parser("drafter", help="distil the drafter from the trained target")
    drafter.set_defaults(run=train_drafter)
    drafter.add_argument(
        "--sampled-tokens", type=int, default=400_000, help="how much the target writes first"
    )
    exporting = commands.add_parser("export", help="write the two model folders")
    exporting.set_defaults(run=export_pair)
    exporting.add_argument("--into", type=Path, required=True, help="where target/ and drafter/ are written")
    evaluating = commands.add_parser("evaluate", help="print loss, acceptance and ten answers")
    evaluating.set_defaults(run=evaluate_pair)
    evaluating.add_argument(
        "--from", type=Path, required=True, dest="source", help="where target/ and drafter/ are"
    )
    for command in (target, drafter, exporting):
        command.add_argument(
            "--work", type=Path, required=True, help="folder of the tokenizer and the checkpoints"
        )
    for command in (target, drafter):
        command.add_argument(
            "--minutes", type=float, required=True, help="wall-clock budget of the training loop"
        )
        command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    for command in (target, drafter, evaluating):
        command.add_argument(
            "--corpus", type=Path, help="stories apart by <|endoftext|> (default: from the Hub)"
        )
        command.add_argument("--extra", type=Path, help="more stories, for training only")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
