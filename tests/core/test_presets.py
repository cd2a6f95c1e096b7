"""Specification of presets: values of a file, and the messages for wrong ones."""

import json
from pathlib import Path

import pytest

from specdec_core.errors import PresetError
from specdec_core.presets import get_preset, list_presets, load_presets
from specdec_core.settings import Settings

TABLES = """
[target]
model = "owner/large"

[drafter]
model = "owner/small"
"""
HEAD = 'title = "A pair"\ndescription = "Two models."\nlicense = "MIT"\n'


def write(folder: Path, head: str = HEAD, tables: str = TABLES, name: str = "mine") -> Path:
    (folder / f"{name}.toml").write_text(head + tables, encoding="utf-8")
    return folder


def refusal(folder: Path, name: str = "mine") -> str:
    """The error's text, without the file's name that every one starts with."""
    with pytest.raises(PresetError) as error:
        get_preset(name, folder)
    start = f"{folder / name}.toml: "
    assert str(error.value).startswith(start)
    return str(error.value).removeprefix(start)


# What a file says


def test_a_preset_is_named_after_its_file(tmp_path):
    presets = list_presets(write(tmp_path))
    assert list(presets) == ["mine"]
    assert presets["mine"].name == "mine"


def test_what_a_file_leaves_out_has_a_careful_default(tmp_path):
    preset = get_preset("mine", write(tmp_path))
    assert preset.settings == Settings(gamma="auto")
    assert preset.vocab_padding == "refuse"
    assert preset.target.cpu_quantization is None
    assert preset.target.quantization == "none"
    assert preset.target.revision is None
    assert preset.gated is False


def test_settings_are_the_engines_own(tmp_path):
    tables = TABLES + '[settings]\ntemperature = 0\ngamma = "auto"\nstop = ["END"]\n'
    preset = get_preset("mine", write(tmp_path, tables=tables))
    assert preset.settings == Settings(temperature=0, gamma="auto", stop=["END"])


def test_a_target_alone_drafts_by_ngram(tmp_path):
    tables = '[target]\nmodel = "owner/large"\n[settings]\ndrafting = "ngram"\n'
    assert get_preset("mine", write(tmp_path, tables=tables)).drafter is None


def test_a_local_path_becomes_the_folder_beside_the_file(tmp_path):
    (tmp_path / "pair" / "target").mkdir(parents=True)
    tables = '[target]\nmodel = "./pair/target"\n[settings]\ngamma = 0\n'
    preset = get_preset("mine", write(tmp_path, tables=tables))
    assert preset.target.model == str((tmp_path / "pair" / "target").resolve())


def test_a_preset_goes_through_json(tmp_path):
    values = json.loads(json.dumps(get_preset("mine", write(tmp_path)).to_dict()))
    assert values["target"] == {
        "model": "owner/large",
        "otherwise": None,
        "revision": None,
        "quantization": "none",
        "cpu_quantization": None,
    }
    assert values["settings"]["gamma"] == "auto"


def test_other_files_are_not_presets(tmp_path):
    write(tmp_path)
    (tmp_path / "notes.md").write_text("not a preset")
    (tmp_path / ".mine.toml").write_text("an editor's backup")
    assert list(list_presets(tmp_path)) == ["mine"]


def test_what_needs_no_licence_comes_first(tmp_path):
    gated = 'gated = true\nlicense_page = "https://example.org/a"\n'
    write(tmp_path, HEAD + gated, name="a")
    write(tmp_path, HEAD + "download_gb = 2.5\n", name="b")
    write(tmp_path, name="c")
    assert list(list_presets(tmp_path)) == ["c", "b", "a"]


PACKAGE = 'model = "package:made_up/model.gguf"\notherwise = "owner/small"\n'


def test_a_package_s_file_is_the_target_where_the_package_is_installed(tmp_path, monkeypatch):
    package = tmp_path / "site" / "made_up"
    package.mkdir(parents=True)
    (package / "model.gguf").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    folder = write(tmp_path, HEAD + "download_gb = 0.5\n", f"[target]\n{PACKAGE}[settings]\ngamma = 0\n")
    preset = get_preset("mine", folder)
    assert (preset.target.model, preset.download_gb) == ("package:made_up/model.gguf", 0)


def test_elsewhere_the_target_comes_from_the_hub(tmp_path):
    folder = write(tmp_path, HEAD + "download_gb = 0.5\n", f"[target]\n{PACKAGE}[settings]\ngamma = 0\n")
    preset = get_preset("mine", folder)
    assert (preset.target.model, preset.download_gb) == ("owner/small", 0.5)


def test_a_package_without_a_stand_in_keeps_its_name(tmp_path):
    tables = '[target]\nmodel = "package:made_up/model.gguf"\n[settings]\ngamma = 0\n'
    assert get_preset("mine", write(tmp_path, tables=tables)).target.model == "package:made_up/model.gguf"


def test_gguf_files_are_models(tmp_path):
    (tmp_path / "model.gguf").touch()
    preset = get_preset("mine", write(tmp_path, tables=local("./model.gguf")))
    assert preset.target.model == str((tmp_path / "model.gguf").resolve())
    preset = get_preset("mine", write(tmp_path, tables=local("owner/name:folder/model.gguf")))
    assert preset.target.model == "owner/name:folder/model.gguf"


def test_a_variant_has_the_values_of_its_preset_but_for_its_own(tmp_path):
    variant = '[variants.small]\ntitle = "Smaller"\ntarget.cpu_quantization = "int4"\nsettings.top_k = 3\n'
    folder = write(tmp_path, tables=TABLES + variant)
    presets = list_presets(folder)
    assert list(presets) == ["mine", "mine-small"]
    own, small = presets.values()
    assert (own.title, own.target.cpu_quantization, own.settings.top_k) == ("A pair", None, 0)
    assert (small.title, small.target.cpu_quantization, small.settings.top_k) == ("Smaller", "int4", 3)
    assert small.target.model == own.target.model
    assert small.drafter == own.drafter
    assert get_preset("mine-small", folder) == small


def test_an_unknown_variant_is_told_with_the_known_ones(tmp_path):
    folder = write(tmp_path, tables=TABLES + '[variants.small]\ntitle = "Smaller"\n')
    with pytest.raises(PresetError, match="Did you mean mine-small"):
        get_preset("mine-smal", folder)


# What is refused


def test_a_wrong_variant_is_told_with_its_name(tmp_path):
    text = refusal(write(tmp_path, tables=TABLES + '[variants.small]\ntitel = "x"\n'))
    assert "mine-small" in text
    assert "unknown key titel" in text
    assert "must hold a table" in refusal(write(tmp_path, HEAD + "variants = 3\n"))


@pytest.mark.parametrize(
    "table", ["[variants.'a/../b']", '[variants.""]', "[variants.small]\nname = 'stories'"]
)
def test_a_variant_is_named_by_its_table(table, tmp_path):
    assert "is named by its table" in refusal(write(tmp_path, tables=f"{TABLES}{table}\n"))


def test_a_stand_in_that_is_no_hub_id_is_refused(tmp_path):
    tables = '[target]\nmodel = "package:x/y.gguf"\notherwise = "../../etc"\n[settings]\ngamma = 0\n'
    assert "target.otherwise must be a Hub id" in refusal(write(tmp_path, tables=tables))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("a-b", "a-b.toml has a preset a-b too"),
        ("a-b-c", "a-b-c.toml has a preset a-b-c too"),
    ],
)
def test_a_variant_has_not_the_name_of_another_file(other, said, tmp_path):
    variants = '[variants.b]\ntitle = "B"\n[variants.b-c]\ntitle = "C"\n'
    write(tmp_path, tables=TABLES + variants, name="a")
    folder = write(tmp_path, name=other)
    presets, errors = load_presets(folder)
    assert list(presets) == [other]
    assert said in str(errors["a"])


def test_two_variants_have_two_names(tmp_path):
    write(tmp_path, tables=TABLES + '[variants.b-c]\ntitle = "C"\n', name="a")
    folder = write(tmp_path, tables=TABLES + '[variants.c]\ntitle = "C"\n', name="a-b")
    presets, errors = load_presets(folder)
    assert sorted(presets) == ["a-b", "a-b-c"]
    assert "a-b.toml has a preset a-b-c too" in str(errors["a"])
    with pytest.raises(PresetError, match="too"):
        get_preset("a", folder)
    assert get_preset("a-b-c", folder).title == "C"


@pytest.mark.parametrize(
    ("stem", "variant", "name"),
    [
        ("smollm2-135m-int4", "", "smollm2-135m-int4"),  # a variant that ships, by a file
        ("smollm2", '[variants.135m]\ntitle = "The operator\'s"\n', "smollm2-135m"),  # a file, by a variant
        ("smollm2", '[variants.135m-int4]\ntitle = "The operator\'s"\n', "smollm2-135m-int4"),
    ],
)
def test_an_operators_preset_replaces_the_one_that_ships(stem, variant, name, tmp_path, monkeypatch):
    head = HEAD.replace("A pair", "The operator's")
    write(tmp_path, head, TABLES + variant, name=stem)
    monkeypatch.setenv("SPECDEC_PRESETS", str(tmp_path))
    presets, errors = load_presets()
    assert not errors
    assert presets[name].title == get_preset(name).title == "The operator's"
    assert "stories" in presets


def test_an_operators_broken_file_hides_the_one_that_ships(tmp_path, monkeypatch):
    write(tmp_path, "titel = 1\n" + HEAD, name="stories")
    monkeypatch.setenv("SPECDEC_PRESETS", str(tmp_path))
    presets, errors = load_presets()
    assert "stories" not in presets
    assert list(errors) == ["stories"]
    with pytest.raises(PresetError, match="titel"):
        get_preset("stories")


def test_a_variant_with_another_model_has_no_stand_in_of_the_first(tmp_path):
    variant = '[variants.large]\ntarget.model = "owner/larger"\n'
    folder = write(tmp_path, tables=f"[target]\n{PACKAGE}[settings]\ngamma = 0\n{variant}")
    assert get_preset("mine-large", folder).target.otherwise is None


def test_a_downloaded_drafter_of_an_installed_target_is_counted(tmp_path, monkeypatch):
    (tmp_path / "site" / "made_up").mkdir(parents=True)
    (tmp_path / "site" / "made_up" / "model.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    tables = f'[target]\n{PACKAGE}[drafter]\nmodel = "owner/small"\n'
    assert get_preset("mine", write(tmp_path, HEAD + "download_gb = 5\n", tables)).download_gb == 5


def test_a_stand_in_for_what_is_no_package_is_refused(tmp_path):
    tables = '[target]\nmodel = "owner/a"\notherwise = "owner/b"\n[settings]\ngamma = 0\n'
    assert "otherwise is for files in packages" in refusal(write(tmp_path, tables=tables))
    assert "form package:NAME/FILE.gguf" in refusal(write(tmp_path, tables=local("package:x/../y.gguf")))


@pytest.mark.parametrize(
    ("head", "tables", "words"),
    [
        (HEAD + 'titel = "x"\n', TABLES, "unknown key titel; did you mean title?"),
        (
            HEAD,
            TABLES + 'quantisation = "nf4"\n',
            "drafter has an unknown key quantisation; did you mean quant",
        ),
        (
            HEAD,
            TABLES + "[settings]\ntemprature = 1\n",
            "settings: has an unknown key temprature; did you mean temp",
        ),
        (HEAD, TABLES + "[settings]\ntemperature = -1\n", "settings: temperature must be at least 0"),
        (HEAD, TABLES + '[settings]\ngamma = "4"\n', "settings: gamma must be a whole number"),
        ("settings = 3\n" + HEAD, TABLES, "settings: must be a table"),
        ('title = "A pair"\nlicense = "MIT"\n', TABLES, "description is missing"),
        (HEAD, "", "target is missing"),
        ('target = "owner/large"\n' + HEAD, "", "target must be a table, not 'owner/large'"),
        (HEAD, "[target]\nrevision = 'v1'\n", "target.model is missing"),
        (HEAD, "[target]\nmodel = 7\n", "target.model must be text in quotes, not 7"),
        ("gated = 1\n" + HEAD, TABLES, "gated must be true or false, not 1"),
        ("examples = 'one'\n" + HEAD, TABLES, "examples must be a list, not 'one'"),
        ("examples = ['one', 2]\n" + HEAD, TABLES, "examples.1 must be text in quotes, not 2"),
        ("download_gb = -1\n" + HEAD, TABLES, "download_gb must be at least 0, not -1"),
        ("vocab_padding = 'cut'\n" + HEAD, TABLES, "vocab_padding must be 'refuse' or 'trim', not 'cut'"),
        (
            HEAD,
            TABLES + 'quantization = "int3"\n',
            "drafter.quantization must be 'none', 'nf4', 'int8' or 'int4', not 'int3'",
        ),
        ("gated = true\n" + HEAD, TABLES, "license_page is missing"),
        (
            "license_page = 'example.org'\n" + HEAD,
            TABLES,
            "license_page must be an address that starts with https://",
        ),
        (HEAD, '[target]\nmodel = "owner/large"\n', 'settings.drafting must be "ngram"'),
        ("name = 'other'\n" + HEAD, TABLES, "unknown key name; the file's own name is the preset's"),
        ("title = ' '\ndescription = 'd'\nlicense = 'l'\n", TABLES, "title must be text that is not empty"),
    ],
)
def test_a_wrong_value_is_told_with_file_and_key(tmp_path, head, tables, words):
    assert words in refusal(write(tmp_path, head, tables))


def test_every_wrong_value_of_a_file_is_told_at_once(tmp_path):
    text = refusal(write(tmp_path, "gated = 1\n" + HEAD, TABLES + "revision = 2\n"))
    assert "gated must be" in text
    assert "drafter.revision must be" in text


def test_no_trace_of_the_validator_reaches_a_person(tmp_path):
    assert "pydantic" not in refusal(write(tmp_path, "gated = 1\n" + HEAD))


def test_broken_toml_is_told_with_its_line(tmp_path):
    assert "not valid TOML" in (text := refusal(write(tmp_path, HEAD + "title = \n")))
    assert "line 4" in text


def test_a_file_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "mine.toml").write_bytes(HEAD.encode() + b"# caf\xe9\n")
    assert "not UTF-8" in refusal(tmp_path)


def test_a_folder_in_place_of_a_file_is_told(tmp_path):
    (tmp_path / "mine.toml").mkdir()
    assert "cannot be read" in refusal(tmp_path)


def local(path: str) -> str:
    return f'[target]\nmodel = "{path}"\n[settings]\ngamma = 0\n'


@pytest.mark.parametrize("path", ["./../outside", "./pair/../../outside", "./pair/link"])
def test_a_path_that_leaves_the_presets_folder_is_refused(tmp_path, path):
    folder = tmp_path / "presets"
    (folder / "pair").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (folder / "pair" / "link").symlink_to(tmp_path / "outside")
    assert "target.model leaves the presets folder" in refusal(write(folder, tables=local(path)))


@pytest.mark.parametrize("path", ["/etc", "~/models", "../outside", "a/b/c", "C:/models", "owner/.."])
def test_what_is_neither_a_hub_id_nor_a_path_inside_is_refused(tmp_path, path):
    assert "target.model must be a Hub id (owner/name), a file on the Hub" in refusal(
        write(tmp_path, tables=local(path))
    )


def test_a_missing_model_folder_is_named(tmp_path):
    text = refusal(write(tmp_path, tables=local("./gone")))
    assert f"target.model: there is no folder or .gguf file {tmp_path / 'gone'}" in text


def test_a_local_path_without_its_dot_is_not_taken_for_a_hub_id(tmp_path):
    (tmp_path / "pair" / "target").mkdir(parents=True)
    assert "Write ./pair/target" in refusal(write(tmp_path, tables=local("pair/target")))


def test_a_revision_beside_a_package_is_its_stand_ins(tmp_path):
    tables = '[target]\nmodel = "package:gone_package/x.gguf"\nrevision = "v1"\n'
    ending = "[settings]\ngamma = 0\n"
    assert "target.revision is for models on the Hub" in refusal(write(tmp_path, tables=tables + ending))
    folder = write(tmp_path, tables=f'{tables}otherwise = "owner/model"\n{ending}')
    assert get_preset("mine", folder).target.revision == "v1"
    variant = '[variants.other]\ntarget.otherwise = "owner/other"\n'
    folder = write(tmp_path, tables=f'{tables}otherwise = "owner/model"\n{ending}{variant}')
    other = get_preset("mine-other", folder).target
    assert (other.model, other.revision) == ("owner/other", None)


def test_a_revision_of_a_local_folder_is_refused(tmp_path):
    (tmp_path / "pair").mkdir()
    tables = '[target]\nmodel = "./pair"\nrevision = "main"\n[settings]\ngamma = 0\n'
    assert "target.revision is for models on the Hub" in refusal(write(tmp_path, tables=tables))


def test_an_unknown_name_lists_the_known_and_suggests_the_closest(tmp_path):
    write(write(tmp_path), name="other")
    with pytest.raises(PresetError, match=r"'Mein'\. Did you mean mine\? The presets are mine, other\."):
        get_preset("Mein", tmp_path)


def test_a_name_is_never_a_path(tmp_path):
    folder = tmp_path / "presets"
    folder.mkdir()
    write(tmp_path, name="outside")
    with pytest.raises(PresetError, match="no preset"):
        get_preset("../outside", folder)


def test_a_missing_presets_folder_is_named(tmp_path):
    with pytest.raises(PresetError, match="There is no presets folder"):
        list_presets(tmp_path / "gone")


# One broken file


def test_listing_names_the_broken_file(tmp_path):
    write(write(tmp_path), HEAD + "gamma = 3\n", name="broken")
    with pytest.raises(PresetError, match=r"broken\.toml: unknown key gamma"):
        list_presets(tmp_path)


def test_a_broken_file_hides_no_other(tmp_path):
    write(write(tmp_path), HEAD + "gamma = 3\n", name="broken")
    presets, errors = load_presets(tmp_path)
    assert list(presets) == ["mine"]
    assert "unknown key gamma" in str(errors["broken"])


def test_a_broken_file_does_not_keep_another_from_being_loaded(tmp_path):
    write(write(tmp_path), HEAD + "gamma = 3\n", name="broken")
    assert get_preset("mine", tmp_path).name == "mine"
