"""Files of a drafter: equal when read back, below their size, complete or refused."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.training.smollm2.tiny_inputs import HEAD_IDS, SHAPE, tiny_target
from training.smollm2 import shards
from training.smollm2.drafter import Drafter

SHIPPED = Path(__file__).parents[3] / "presets" / "smollm2-135m" / "drafter"


@pytest.fixture(scope="module")
def drafter():
    return Drafter.from_target(tiny_target(), [0, 2], torch.tensor(HEAD_IDS))


def test_shards_read_back_equal_and_stay_below_the_size(drafter, tmp_path):
    stored = shards.quantize(drafter.tensors(SHAPE))
    paths = shards.write_shards(tmp_path, stored, 20_000, {"quantization": "int8 rows"})
    assert len(paths) > 2
    assert max(path.stat().st_size for path in paths) < 20_000
    read = shards.read_shards(tmp_path)
    assert read.keys() == stored.keys()
    for name, tensor in stored.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_a_drafter_reads_back_as_its_rounded_self(drafter, tmp_path):
    shards.write_shards(tmp_path, shards.quantize(drafter.tensors(SHAPE)), 10**6, {})
    read = Drafter.from_tensors(shards.dequantize(shards.read_shards(tmp_path)))
    for weight, rounded, exact in zip(
        read.parameters, drafter.rounded(SHAPE).parameters, drafter.parameters, strict=True
    ):
        assert torch.equal(weight, rounded)
        largest = exact.abs().amax(-1, keepdim=True)
        assert ((weight - exact).abs() <= largest / 127).all()
    assert torch.equal(read.head_ids, drafter.head_ids)


def test_a_missing_file_is_refused(drafter, tmp_path):
    paths = shards.write_shards(tmp_path, shards.quantize(drafter.tensors(SHAPE)), 20_000, {})
    paths[1].unlink()
    with pytest.raises(ValueError, match=f"{len(paths) - 1} of {len(paths)} files"):
        shards.read_shards(tmp_path)


def test_files_of_an_earlier_drafter_do_not_stay(drafter, tmp_path):
    stored = shards.quantize(drafter.tensors(SHAPE))
    shards.write_shards(tmp_path, stored, 20_000, {})
    paths = shards.write_shards(tmp_path, stored, 10**6, {})
    assert sorted(tmp_path.iterdir()) == paths


def test_a_tensor_above_the_size_is_refused(drafter, tmp_path):
    with pytest.raises(ValueError, match=r"a file of 4,000 cannot hold it"):
        shards.write_shards(tmp_path, shards.quantize(drafter.tensors(SHAPE)), 4_000, {})


def test_the_shipped_drafter_has_its_shape_and_fits_into_a_repository():
    paths = sorted(SHIPPED.glob("*.safetensors"))
    assert max(path.stat().st_size for path in paths) < 9_000_000
    with safe_open(paths[0], "pt") as file:
        assert file.metadata()["target_layers"] == "0,1,28,29"
    drafter = Drafter.from_tensors(shards.dequantize(shards.read_shards(SHIPPED)))
    assert len(drafter.layers) == 4
    assert drafter.head.shape == (8192, 576)
    assert drafter.head_ids.unique().numel() == 8192
    assert all(parameter.isfinite().all() for parameter in drafter.parameters)
    assert "Apache" in (SHIPPED / "README.md").read_text()
