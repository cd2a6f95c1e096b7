"""The target's forward and its decode step against independent forwards."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.training.smollm2.tiny_inputs import SHAPE, tiny_target
from training.smollm2.attention import torch_attention
from training.smollm2.decoder import Decoder
from training.smollm2.target import Target


@pytest.fixture(scope="module")
def target() -> Target:
    return tiny_target()


def _ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(SHAPE.vocab, (rows, length), generator=torch.Generator().manual_seed(1))


def _transformers_model(target: Target) -> LlamaForCausalLM:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SHAPE.vocab,
            hidden_size=SHAPE.hidden,
            intermediate_size=SHAPE.ffn,
            num_hidden_layers=SHAPE.layers,
            num_attention_heads=SHAPE.heads,
            num_key_value_heads=SHAPE.kv_heads,
            rms_norm_eps=SHAPE.eps,
            rope_theta=SHAPE.theta,
            tie_word_embeddings=True,
        )
    )
    weights = {"model.embed_tokens.weight": target.embedding, "model.norm.weight": target.norm}
    for index, layer in enumerate(target.layers):
        query, key, value = layer.qkv.split(SHAPE.qkv_rows)
        gate, up = layer.gate_up.chunk(2)
        names = {
            "input_layernorm": layer.input_norm,
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": layer.out,
            "post_attention_layernorm": layer.post_norm,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer.down,
        }
        weights |= {f"model.layers.{index}.{name}.weight": weight for name, weight in names.items()}
    missing = model.load_state_dict(weights, strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"])
    assert not missing.unexpected_keys
    return model.eval()


@torch.no_grad()
def test_states_equal_transformers_and_the_reference(target):
    ids = _ids(2, 40)
    states = target.states(ids)
    expected = _transformers_model(target).model(ids).last_hidden_state
    torch.testing.assert_close(states, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(target.reference_states(ids[1]), expected[1], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_decode_steps_at_different_positions_equal_a_whole_forward(target):
    ids = _ids(3, 50)
    expected = target.states(ids)
    decoder = Decoder(target, slots=3, max_positions=64, attend=torch_attention)
    rows = torch.arange(3)
    positions = torch.zeros(3, dtype=torch.long)
    for step in range(60):
        states = decoder.step(ids[rows, positions], positions)
        torch.testing.assert_close(states, expected[rows, positions], atol=2e-5, rtol=1e-4)
        # Rows start 5 steps apart, so that each is elsewhere; one that has not started feeds its first token.
        positions = (torch.full((3,), step + 1) - 5 * rows).clamp(0, 49)
    torch.testing.assert_close(decoder.states[:, :50], expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_what_stands_behind_a_position_is_not_read(target):
    first, second = _ids(1, 20)[0], _ids(2, 20)[1]
    decoder = Decoder(target, slots=1, max_positions=32, attend=torch_attention)
    for ids in (first, second):
        for position, token in enumerate(ids):
            decoder.step(token[None], torch.tensor([position]))
    torch.testing.assert_close(decoder.states[0, :20], target.states(second[None])[0], atol=2e-5, rtol=1e-4)
