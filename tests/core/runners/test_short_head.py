"""A drafter that knows only frequent tokens: same logits for those, none for the rest, exact all the same."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import specdec_core as sd
from specdec_core.peers import stock_models
from specdec_core.presets import read_preset
from specdec_core.runners import runner_for
from specdec_core.runners.short_head import ShortHead, frequent_ids, shorten_head, whole_heads
from tests.support.tiny_models import ARCHITECTURES, VOCAB, tiny_model
from tests.support.tiny_pair import save_pair

VIEWS = ("aten.reshape.default", "aten.view.default", "aten.slice.Tensor")
"""Operations that launch no kernel."""


class Operations(TorchDispatchMode):
    """The names of the operations that run within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kept_tokens_have_their_logits_and_the_others_none(architecture):
    ids = torch.tensor([5, 6, 7, 8])
    whole = runner_for(tiny_model(architecture))
    wanted = whole.forward(whole.new_cache(), ids)
    model = tiny_model(architecture)
    shorten_head(model, range(0, VOCAB, 3))
    short = runner_for(model)
    got = short.forward(short.new_cache(), ids)
    kept = torch.zeros(VOCAB, dtype=torch.bool)
    kept[::3] = True
    torch.testing.assert_close(got[:, kept], wanted[:, kept], atol=1e-4, rtol=1e-4)
    assert (got[:, ~kept] <= -30).all(), "Gemma 2 caps its logits at 30, all others leave -inf"


def kept_ids(head: ShortHead) -> set[int]:
    """The ids that a short output layer has logits for."""
    return {*range(head.first), *head.others.tolist()}


@pytest.mark.parametrize(
    "ids",
    [range(40), [*range(40), 77, 90], [3, 50], range(VOCAB), [0], []],
    ids=["lowest", "lowest and others", "no run of the lowest", "all", "one", "none"],
)
@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_short_layer_has_the_logits_of_the_whole_one(ids, rows, dtype, biased):
    whole = torch.nn.Linear(32, VOCAB, bias=biased, dtype=dtype)
    short = ShortHead(whole, ids)
    hidden = torch.randn(1, rows, 32, dtype=dtype)
    got, wanted = short(hidden), whole(hidden)
    kept = torch.zeros(VOCAB, dtype=torch.bool)
    kept[list(ids)] = True
    assert kept_ids(short) == set(ids)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got[..., kept], wanted[..., kept])
    assert (got[..., ~kept] == -torch.inf).all()


def test_the_lowest_ids_are_read_in_place_and_the_weight_stays_tied():
    model = tiny_model("llama")
    model.set_output_embeddings(torch.nn.Linear(32, VOCAB, bias=False))
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    before = model.get_memory_footprint()
    shorten_head(model, [*range(40), 77])
    head = model.get_output_embeddings()
    assert head.weight is model.get_input_embeddings().weight
    assert model.get_memory_footprint() - before == 4 * 32 + 8, "one row and its id"
    assert head.unread_bytes == (VOCAB - 40) * 32 * 4


def test_a_forward_runs_few_operations_none_of_which_waits_for_the_device():
    head = ShortHead(torch.nn.Linear(32, VOCAB, bias=False, dtype=torch.bfloat16), [*range(40), 77])
    hidden = torch.randn(1, 32, dtype=torch.bfloat16)
    with torch.inference_mode(), Operations() as operations:
        head(hidden)
    assert [name for name in operations.names if name not in VIEWS] == [
        "aten.new_full.default",
        "aten.linear.default",
        "aten.copy_.default",
        "aten.linear.default",
        "aten.index_copy_.default",
    ]


def test_transformers_is_measured_with_the_whole_layer():
    model = tiny_model("llama")
    whole = model.get_output_embeddings()
    shorten_head(model, range(40))
    short = model.get_output_embeddings()
    with whole_heads(model):
        assert model.get_output_embeddings() is whole
    assert model.get_output_embeddings() is short


def test_a_quantized_layer_is_refused_by_its_class():
    class Packed(torch.nn.Linear):
        pass

    model = tiny_model("llama")
    model.set_output_embeddings(Packed(32, VOCAB))
    with pytest.raises(sd.LoadError, match="output layer is a Packed"):
        shorten_head(model, range(40))


def test_the_most_frequent_ids_are_kept_then_the_lowest():
    assert frequent_ids(5, 100, [], [70, 90, 90, 70, 90, 30]) == [0, 1, 30, 70, 90]


def test_control_tokens_are_kept_beside_them():
    assert frequent_ids(3, 100, [42, 1]) == [0, 1, 2, 42]


def test_no_more_than_there_are():
    assert frequent_ids(500, 10, [3, 12], [11]) == list(range(10))


PRESET = """
title = "small"
description = "for a test"
license = "none"
drafter_vocabulary = {size}
{text}
[target]
model = "./target"
[drafter]
model = "./drafter"
"""


@pytest.fixture
def short_preset(tmp_path):
    """A preset whose drafter knows the characters of one text and what ends an answer."""
    save_pair(tmp_path)
    (tmp_path / "words.txt").write_text("Once upon a time there was a little dog.")
    file = tmp_path / "short.toml"
    file.write_text(PRESET.format(size=24, text='drafter_vocabulary_text = "./words.txt"'))
    return read_preset(file)


def test_a_preset_shortens_its_drafter_and_the_text_stays_the_baseline_s(short_preset):
    engine = sd.Engine.load(short_preset, device="cpu")
    message = [{"role": "user", "content": "Once upon a time"}]
    kept = kept_ids(engine.pair.drafter.model.get_output_embeddings())
    for settings in ({"temperature": 0}, {"temperature": 1.0, "verification": "coupled", "seed": 3}):
        common = {"max_new_tokens": 40, **settings}
        wanted = engine.generate(message, sd.Settings(gamma=0, **common)).token_ids
        result = engine.generate(message, sd.Settings(gamma=3, **common))
        assert result.token_ids == wanted
        assert {t.id for rnd in result.rounds for t in rnd.drafted} <= kept


def test_a_missing_or_outside_text_is_named(tmp_path):
    save_pair(tmp_path)
    file = tmp_path / "wrong.toml"
    for text, said in (("./none.txt", "no file"), ("../../etc/passwd", "leaves the presets folder")):
        file.write_text(PRESET.format(size=9, text=f'drafter_vocabulary_text = "{text}"'))
        with pytest.raises(sd.PresetError, match=said):
            read_preset(file)


def test_control_tokens_of_the_tokenizer_are_kept(tmp_path):
    save_pair(tmp_path)
    file = tmp_path / "short.toml"
    file.write_text(PRESET.format(size=9, text=""))
    engine = sd.Engine.load(read_preset(file), device="cpu")
    added = set(engine.pair.tokenizer.added_tokens_decoder)
    assert added - set(range(9)), "some control tokens are not among the lowest ids"
    assert kept_ids(engine.pair.drafter.model.get_output_embeddings()) == {*range(9), *added}


def test_transformers_assisted_generation_drafts_with_the_whole_layer(short_preset):
    """Its drafts have tokens that the short layer has no logits for."""
    engine = sd.Engine.load(short_preset, device="cpu")
    drafter = engine.pair.drafter.model
    short = drafter.get_output_embeddings()
    with stock_models(engine.pair):
        assert type(drafter.get_output_embeddings()) is torch.nn.Linear
        logits = drafter(torch.tensor([[5, 6]])).logits
    assert logits.isfinite().all()
    assert drafter.get_output_embeddings() is short
