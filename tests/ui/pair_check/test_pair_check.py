"""Pair check: the gate's report for two names, the preset that a passed pair makes, and hostile names."""

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType

import specdec_core as sd
from specdec_ui.loading.own_pair import OwnPair
from specdec_ui.pair_check import handlers as pair_check_handlers
from specdec_ui.pair_check.handlers import Login, PairFields
from specdec_ui.state.holder import EngineHolder
from tests.support.hub_server import COMMIT
from tests.support.mismatched import write_mismatched_preset
from tests.support.replay import loaded_holder
from tests.support.tiny_gguf import save_gguf

HUB_PAIR = OwnPair(
    "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", True, True, "v2", "0123456789abcdef"
)


def check(target, drafter, holder=None, locked=False):
    holder = holder or EngineHolder()
    return list(pair_check_handlers.check(holder, PairFields(target, drafter), 0, locked))


def test_a_pair_that_fits_may_be_loaded_and_kept(pair_folders):
    *_, last = check(*pair_folders)
    assert "can work together" in last.report
    assert (last.passed.target, last.passed.drafter) == pair_folders
    assert "[target]" in last.toml


def test_a_model_with_itself_works_but_is_said_to_be_no_faster(pair_folders):
    target, _ = pair_folders
    *_, last = check(target, target)
    assert 'data-verdict="warning"' in last.report
    assert "can work together, but it will not be faster." in last.report
    assert "as large as the target" in last.report.partition("<table")[0]
    assert last.passed is not None


def test_a_pair_that_does_not_fit_is_refused_with_the_report(tmp_path):
    write_mismatched_preset(tmp_path)
    *_, last = check(str(tmp_path / "mismatched/target"), str(tmp_path / "mismatched/drafter"))
    assert "cannot work together" in last.report
    assert 'data-verdict="fail"' in last.report
    assert (last.passed, last.toml) == (None, "")


def test_a_folder_that_is_not_there_is_explained(tmp_path):
    *_, last = check(str(tmp_path / "a"), str(tmp_path / "b"))
    assert "could not be checked" in last.report
    assert last.passed is None


@pytest.mark.parametrize(
    ("target", "drafter", "said"),
    [
        ("", "b", "Name the target"),
        ("a", "  ", "Name the drafter"),
        (None, "b", "Name the target"),
        ("a\nb", "b", "one line"),
        ("a" * 501, "b", "one line"),
        ("a\ud800", "b", "U+D800"),
    ],
)
def test_what_names_no_model_is_explained_before_anything_is_read(target, drafter, said):
    frames = check(target, drafter)
    assert len(frames) == 1
    assert said in frames[0].report


def test_a_folder_with_a_revision_is_explained(pair_folders):
    fields = PairFields(*pair_folders, drafter_revision="v2")
    *_, frame = pair_check_handlers.check(EngineHolder(), fields, 0, False)
    assert f"{pair_folders[1]} is a folder here, which has no revisions" in frame.report


def test_a_file_with_a_revision_is_explained(tmp_path):
    path = save_gguf(tmp_path)
    fields = PairFields(path, path, drafter_revision="v2")
    *_, frame = pair_check_handlers.check(EngineHolder(), fields, 0, False)
    assert f"{path} is a file here, which has no revisions" in frame.report


def test_a_pair_of_gguf_files_that_passes_loads_in_its_own_format(tmp_path):
    target = save_gguf(tmp_path / "target", kinds=GGMLQuantizationType.Q8_0)
    drafter = save_gguf(tmp_path / "drafter", kinds=GGMLQuantizationType.Q4_1)
    passed = check(target, drafter)[-1].passed
    engine = sd.Engine.load(passed.preset(), device="cpu")
    assert engine.pair.target.weights == "int8"
    assert engine.pair.drafter.weights == "int4"


def test_a_revision_that_the_hub_has_not_is_explained_and_one_that_it_has_passes(hub, pair_folders):
    for role, folder in zip(("target", "drafter"), pair_folders, strict=True):
        hub.repositories[f"org/{role}"] = Path(folder)

    def last(revision):
        fields = PairFields("org/target", "org/drafter", drafter_revision=revision)
        return list(pair_check_handlers.check(EngineHolder(), fields, 0, False))[-1]

    assert "org/drafter has no revision" in last("v9").report
    assert last(COMMIT).passed.drafter_revision == COMMIT
    assert f'revision = "{COMMIT}"' in last(COMMIT).toml


def test_a_visitors_login_opens_a_gated_model_to_their_own_check_and_leaves_nothing_behind(hub, pair_folders):
    token = "hf_ofonevisitor"
    for role, folder in zip(("target", "drafter"), pair_folders, strict=True):
        hub.repositories[f"org/{role}"] = Path(folder)
        hub.gated[f"org/{role}"] = {token}

    def last(login):
        fields = PairFields("org/target", "org/drafter")
        return list(pair_check_handlers.check(EngineHolder(), fields, 0, False, login))[-1]

    assert "log in above" not in last(None).report
    assert "org/target is gated" in last(Login()).report
    assert "log in above" in last(Login()).report
    assert "can work together" in last(Login(token)).report
    assert token not in str(last(Login(token)))
    assert "org/target is gated" in last(Login()).report
    denied = last(Login("hf_ofanother")).report
    assert "the access of your own account" in denied
    assert "hf_ofanother" not in denied


def test_names_never_become_markup():
    hostile = "<img src=x onerror=alert(1)>/${alert(2)}"
    *_, last = check(hostile, hostile)
    assert "<img" not in last.report


def test_the_page_says_whose_pair_would_be_replaced(pair_folders):
    holder = loaded_holder()
    assert "replaces <strong>replay</strong>" in check(*pair_folders, holder)[-1].about
    assert "operator" in check(*pair_folders, holder, locked=True)[-1].about


def test_the_toml_of_a_hub_pair_is_a_preset(tmp_path):
    (tmp_path / "own.toml").write_text(HUB_PAIR.toml(), encoding="utf-8")
    preset = sd.list_presets(tmp_path)["own"]
    assert (preset.target.model, preset.drafter.model) == (HUB_PAIR.target, HUB_PAIR.drafter)
    assert (preset.target.revision, preset.drafter.revision) == ("v2", "0123456789abcdef")
    assert (preset.vocab_padding, preset.target.quantization) == ("trim", "nf4")
    assert (preset.target, preset.drafter) == (HUB_PAIR.preset().target, HUB_PAIR.preset().drafter)
    assert preset.settings == HUB_PAIR.preset().settings


@pytest.mark.parametrize("folder", ["/models/a b/große", 'C:\\models\\"x"', "/", "/models/.hidden"])
def test_the_toml_of_folders_is_a_preset_once_they_are_copied(tmp_path, folder):
    pair = OwnPair(folder, folder)
    for role in ("target", "drafter"):
        (tmp_path / pair.file_stem / role).mkdir(parents=True)
    (tmp_path / "own.toml").write_text(pair.toml(), encoding="utf-8")
    assert sd.list_presets(tmp_path)["own"].target.model.endswith("/target")


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("owner/name:folder/model.gguf", "owner/name:folder/model.gguf"),
        ("package:some_weights/model.gguf", "package:some_weights/model.gguf"),
        ("/models/model.gguf", "./model.gguf-model.gguf/target.gguf"),
        ("C:\\models\\model.gguf", "./model.gguf-model.gguf/target.gguf"),
        ("models/model.gguf", "./model.gguf-model.gguf/target.gguf"),
    ],
)
def test_the_toml_of_gguf_files_is_a_preset(tmp_path, model, kept):
    pair = OwnPair(model, model)
    folder = tmp_path / pair.file_stem
    folder.mkdir()
    for role in ("target", "drafter"):
        (folder / f"{role}.gguf").touch()
    text = pair.toml()
    assert f'model = "{kept}"' in text
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    assert sd.list_presets(tmp_path)["own"].target.model.endswith(kept.removeprefix("./"))


def test_a_pair_of_ones_own_shows_no_path_of_the_machine():
    pair = OwnPair("/home/somebody/models/large", "/home/somebody/models/small")
    preset = pair.preset()
    assert "somebody" not in preset.name + preset.title + preset.description


def test_another_pair_with_the_same_names_is_not_taken_for_the_loaded_one():
    loaded = OwnPair("/x/large", "/x/small").preset()
    assert OwnPair("/x/large", "/x/small").preset(loaded).name == loaded.name
    assert OwnPair("/y/large", "/y/small").preset(loaded).name != loaded.name


def test_a_checked_pair_loads_as_a_preset_does(pair_folders):
    preset = OwnPair(*pair_folders).preset()
    holder = EngineHolder()
    loaded = holder.load(preset, lambda message, fraction: None)
    assert loaded.engine.info.title == preset.title
    loaded.engine.unload()
