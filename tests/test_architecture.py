"""The rules of the layout, read off the imports: arrows point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import specdec_core

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "specdec_core").rglob("*.py"))
UI = [*sorted((ROOT / "ui").rglob("*.py")), ROOT / "app.py"]
LEAVES = {f"specdec_core.{name}" for name in ("settings", "errors", "trace", "metrics")}
LAYERS = [
    {"errors", "trace", "units"},
    {
        "settings",
        "metrics",
        "fair_lock",
        "pair_report",
        "hub_errors",
        "progress",
        "adapters",
        "chat_template",
    },
    {"sampling", "draft_length"},
    {"verification"},
    {"samplers", "runners"},
    {"drafting", "prompting", "detokenization"},
    {"decoding", "pair", "presets", "tokenizer_identity", "model_files", "loading", "resumed_download"},
    {"session", "logit_width", "step_times", "memory", "download"},
    {"compatibility", "placement", "peer_generation", "margin", "warm_up"},
    {"pair_plan"},
    {"assembly"},
    {"engine"},
    {"peers", "terminal_chat"},
    {"exactness"},
    {"bench"},
    {"__main__", "__init__"},
]
LAYER_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def _package(path: Path) -> str:
    """The module or subpackage of specdec_core that a file belongs to."""
    return path.relative_to(ROOT / "specdec_core").parts[0].removesuffix(".py")


def _imports(path: Path) -> list[tuple[str, list[str]]]:
    """(module, names) of every import in the file; relative ones resolved against specdec_core."""
    found = []
    package = ["specdec_core", *path.parent.relative_to(ROOT / "specdec_core").parts] if path in CORE else []
    tree = ast.parse(path.read_text())
    for_types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.append(
                (".".join([*base, *([node.module] if node.module else [])]), [a.name for a in node.names])
            )
    return found


def _inner(path: Path) -> set[str]:
    """Other modules of specdec_core that the file imports."""
    own = _package(path)
    modules = {module.split(".")[1] for module, _ in _imports(path) if module.startswith("specdec_core.")}
    return modules - {own}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_layers_below_its_own(path):
    own = _package(path)
    upward = {name for name in _inner(path) if LAYER_OF[name] >= LAYER_OF[own]}
    assert not upward, f"{own} reaches up to {', '.join(sorted(upward))}"


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_knows_nothing_of_gradio(path):
    assert not [module for module, _ in _imports(path) if module.split(".")[0] in ("gradio", "ui")]


@pytest.mark.parametrize("path", UI, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_page_uses_only_public_names_and_leaves_of_the_engine(path):
    for module, names in _imports(path):
        if module.split(".")[0] == "specdec_core" and module not in LEAVES:
            assert module == "specdec_core", f"{path.name} reaches past the public names into {module}"
            assert set(names) <= set(specdec_core.__all__)


def test_only_loading_and_runners_touch_transformers_model_classes():
    for path in CORE:
        if _package(path) in ("loading", "runners", "bench"):  # bench makes random models to measure
            continue
        for module, names in _imports(path):
            if module.split(".")[0] == "transformers":
                classes = {
                    name for name in names if name.startswith("AutoModel") or name.endswith("ForCausalLM")
                }
                assert not classes, f"{path.name} imports {classes}"


def test_decoding_never_sees_text():
    blind = ("decoding", "samplers", "verification", "sampling")
    for path in (path for path in CORE if _package(path) in blind):
        assert not _inner(path) & {"detokenization", "prompting"}
        assert not [m for m, _ in _imports(path) if m.split(".")[0] in ("tokenizers", "transformers")]


def test_verification_never_sees_a_model():
    assert _inner(ROOT / "specdec_core" / "verification.py") == {"sampling"}


def test_every_public_name_is_there():
    for name in specdec_core.__all__:
        assert getattr(specdec_core, name) is not None
