"""The rules of the layout, read off the imports: arrows between packages point one way."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import specdec_core

ROOT = Path(__file__).parents[1]
CORE_ORDER = [
    {"cli"},
    {"bench"},
    {"engine"},
    {"session", "peers", "llama_cpp"},
    {"loading"},
    {"pair", "rounds"},
    {"decoding", "gate"},
    {"drafting"},
    {"sampling"},
    {"runners", "text", "hub"},
    {"onnx_runtime"},
]
"""Packages and modules of specdec_core from the top down; whatever is not named here is a leaf."""
TABS = {"chat", "compare", "pair_check", "traces"}
PAGE_ORDER = [{"command"}, {"page"}, {"api"}, TABS, {"loading"}, {"state"}, {"parts"}]
"""Packages and modules of specdec_ui from the top down; whatever is not named here is a tab."""
PAGE_MAY_IMPORT = {"specdec_core"}


def _files(package: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


CORE, PAGE, TRAINING = _files("specdec_core"), _files("specdec_ui"), _files("training")


@cache
def _imports(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(absolute module, names) of every import in a file, those for type checkers left out."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for_types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.parent.parts[: len(path.parent.parts) - node.level + 1] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            found.append((module, tuple(alias.name for alias in node.names)))
    return found


def _room(path: Path) -> str:
    """The package below the top one, or the module, that a file belongs to."""
    return path.parts[1].removesuffix(".py")


def _rooms_used(path: Path) -> set[str]:
    """Other rooms of the file's own top package that it imports."""
    top = path.parts[0]
    rooms = set()
    for module, names in _imports(path):
        parts = module.split(".")
        if parts[0] == top:
            rooms |= {parts[1]} if len(parts) > 1 else set(names)
    # `from .. import __version__` names no room.
    return {room for room in rooms if not room.startswith("__")} - {_room(path)}


def _depth(room: str, order: list[set[str]]) -> int:
    """Index in the order; of a room that it does not name, that of leaves (core) or of tabs (page)."""
    default = order.index(TABS) if order is PAGE_ORDER else len(order)
    return next((depth for depth, rooms in enumerate(order) if room in rooms), default)


@pytest.mark.parametrize(("package", "order"), [("specdec_core", CORE_ORDER), ("specdec_ui", PAGE_ORDER)])
def test_every_room_in_the_order_exists_and_every_package_is_in_it(package, order):
    named = set().union(*order)
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / package).glob("*.py")}
    assert package == "specdec_ui" or folders <= named
    assert named <= folders | modules


@pytest.mark.parametrize("path", [*CORE, *PAGE], ids=str)
def test_arrows_between_packages_point_one_way(path):
    if _room(path) in ("__init__", "__main__"):
        return
    order = CORE_ORDER if path.parts[0] == "specdec_core" else PAGE_ORDER
    own = _depth(_room(path), order)
    leaves = len(order)
    upward = {room for room in _rooms_used(path) if _depth(room, order) <= own and own != leaves}
    upward |= {room for room in _rooms_used(path) if own == leaves and _depth(room, order) < leaves}
    assert not upward, f"{path} reaches up or sideways to {', '.join(sorted(upward))}"


@pytest.mark.parametrize("package", ["specdec_core", "specdec_ui"])
def test_modules_of_one_package_do_not_import_in_circles(package):
    files = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in _files(package)}
    arrows: dict[str, set[str]] = {}
    for module, path in files.items():
        used = set()
        for target, names in _imports(path):
            used |= {f"{target}.{name}" for name in names if f"{target}.{name}" in files} or {target}
        arrows[module] = (used & files.keys()) - {module}
    for _ in files:
        arrows = {module: used for module, used in arrows.items() if used & arrows.keys()}
    assert not arrows, f"a circle among {', '.join(sorted(arrows))}"


@pytest.mark.parametrize("path", CORE, ids=str)
def test_the_engine_knows_nothing_of_the_page(path):
    assert not [m for m, _ in _imports(path) if m.split(".")[0] in ("gradio", "specdec_ui", "training")]


@pytest.mark.parametrize("path", [*PAGE, *TRAINING], ids=str)
def test_others_use_public_names_of_the_engine(path):
    for module, names in _imports(path):
        if module.split(".")[0] == "specdec_core":
            assert module in PAGE_MAY_IMPORT, f"{path} reaches past the public names into {module}"
            if module == "specdec_core":
                assert set(names) <= set(specdec_core.__all__)


def test_only_loading_and_runners_touch_transformers_model_classes():
    for path in CORE:
        if _room(path) in ("loading", "runners", "bench"):  # bench makes random models to measure
            continue
        for module, names in _imports(path):
            if module.split(".")[0] == "transformers":
                classes = [n for n in names if n.startswith("AutoModel") or n.endswith("ForCausalLM")]
                assert not classes, f"{path} imports {classes}"


def test_decoding_never_sees_text():
    for path in (path for path in CORE if _room(path) in ("decoding", "sampling")):
        assert "text" not in _rooms_used(path)
        assert not [m for m, _ in _imports(path) if m.split(".")[0] in ("tokenizers", "transformers")]


def test_sampling_never_sees_a_model():
    for path in (path for path in CORE if _room(path) == "sampling"):
        assert not _rooms_used(path) & {"runners", "loading", "pair"}


def test_every_public_name_is_there():
    for name in specdec_core.__all__:
        assert getattr(specdec_core, name) is not None


def test_type_checkers_see_the_public_names():
    """The imports below TYPE_CHECKING say the same as the table of lazily loaded names."""
    tree = ast.parse((ROOT / "specdec_core" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {(node.module, alias.name) for node in block.body for alias in node.names}
    assert seen == {(module, name) for module, names in specdec_core._PUBLIC.items() for name in names}
