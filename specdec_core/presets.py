"""Presets in files: one TOML file each, with its variants, read and resolved.

Knows nothing of how models are loaded. Every error is a PresetError that names file and key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .errors import PresetError
from .package_files import PACKAGE, package_file
from .preset import Preset, PresetModel, unknown_key

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_presets"
PRESETS_FOLDER = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "presets"
"""The folder of the presets that ship: inside the package in a wheel, beside it in a checkout."""
OWN_FOLDER = "SPECDEC_PRESETS"
"""Environment variable with a folder of further presets, which replace shipped ones of the same name."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILE = re.compile(r"[\w.-]+/[\w.-]+:[^:]+\.gguf")
_VARIANTS = "variants"
_VARIANT_NAME = re.compile(r"[\w-]+")


def list_presets(folder: str | Path | None = None) -> dict[str, Preset]:
    """Return every preset by name, those that need no licence first. Raises PresetError if a file is wrong.

    `folder` holds the TOML files; None stands for PRESETS_FOLDER and the folder that OWN_FOLDER names.
    """
    presets, errors = load_presets(folder)
    if errors:
        raise PresetError("\n".join(map(str, errors.values())))
    return presets


def load_presets(folder: str | Path | None = None) -> tuple[dict[str, Preset], dict[str, PresetError]]:
    """Return the valid presets and the errors of the others, both by name: a broken file hides no other.

    Raises PresetError if the folder itself cannot be read.
    """
    own = os.environ.get(OWN_FOLDER) if folder is None else None
    files = _files_in(Path(folder or PRESETS_FOLDER))
    own_files = _files_in(Path(own), f" ({OWN_FOLDER})") if own else {}
    presets, errors = _read_all({stem: path for stem, path in files.items() if stem not in own_files})
    own_presets, own_errors = _read_all(own_files)
    presets = {name: preset for name, preset in presets.items() if name not in own_errors} | own_presets
    by_access = sorted(presets.items(), key=lambda item: (item[1].gated, item[1].download_gb > 0, item[0]))
    return dict(by_access), errors | own_errors


def _read_all(files: Mapping[str, Path]) -> tuple[dict[str, Preset], dict[str, PresetError]]:
    """The valid presets in the files of one folder, and the errors of the other files, among them those with
    a variant of another preset's name.
    """
    presets: dict[str, Preset] = {}
    errors: dict[str, PresetError] = {}
    owners = dict(files)
    for stem, path in files.items():
        try:
            found = read_presets(path)
            for name in found:
                if (owner := owners.setdefault(name, path)) != path:
                    raise PresetError(
                        f"{path}: {_VARIANTS}: {owner.name} has a preset {name} too. Choose another name."
                    )
        except PresetError as error:
            errors[stem] = error
        else:
            presets |= found
    return presets, errors


def get_preset(name: str, folder: str | Path | None = None) -> Preset:
    """Return one preset; other files may be broken. Raises PresetError, which lists the names if unknown."""
    presets, errors = load_presets(folder)
    if name in presets:
        return presets[name]
    for stem, error in errors.items():
        if name == stem or name.startswith(f"{stem}-"):
            raise error
    names = [*presets, *errors]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise PresetError(
        f"There is no preset {name!r}.{hint} The presets are {', '.join(sorted(names)) or 'none'}."
    )


def read_preset(path: Path) -> Preset:
    """Read and validate the preset of a file, without its variants. Raises PresetError."""
    return next(iter(read_presets(path).values()))


def read_presets(path: Path) -> dict[str, Preset]:
    """Read and validate a file: its preset, and one for each table in `variants`, named NAME-VARIANT.

    A variant has the values of the preset but for those that its table states. Local paths become absolute.
    Raises PresetError.
    """
    values = _read_toml(path)
    if "name" in values:
        raise PresetError(f"{path}: unknown key name; the file's own name is the preset's.")
    variants = values.pop(_VARIANTS, {})
    if not isinstance(variants, dict) or not all(isinstance(own, dict) for own in variants.values()):
        raise PresetError(f"{path}: {_VARIANTS} must hold a table for each variant, [{_VARIANTS}.NAME].")
    presets = {path.stem: _validated(path, path.stem, values)}
    for variant, own in variants.items():
        if not _VARIANT_NAME.fullmatch(variant) or "name" in own:
            raise PresetError(
                f"{path}: {_VARIANTS}.{variant}: a variant is named by its table, in letters and digits."
            )
        name = f"{path.stem}-{variant}"
        presets[name] = _validated(path, name, _merged(values, own))
    return presets


def _merged(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Values with those of a variant in their place; in tables, one by one."""
    merged = dict(values)
    for key, value in own.items():
        given = values.get(key)
        if not (isinstance(value, dict) and isinstance(given, dict)):
            merged[key] = value
            continue
        # Another model or stand-in has neither the revision nor the stand-in of this one.
        gone = {"revision", "otherwise"} if value.keys() & {"model", "otherwise"} else set()
        merged[key] = {name: v for name, v in given.items() if name not in gone} | value
    return merged


def _validated(path: Path, name: str, values: dict[str, Any]) -> Preset:
    try:
        preset = Preset.model_validate({"name": name, **values})
    except ValidationError as error:
        where = path if name == path.stem else f"{path}: {name}"
        problems = [_explain(problem) for problem in error.errors()]
        raise PresetError("\n".join(f"{where}: {problem}." for problem in problems)) from error
    resolved: dict[str, object] = {
        key: _resolved(path, key, model)
        for key, model in (("target", preset.target), ("drafter", preset.drafter))
        if model is not None
    }
    if preset.drafter_vocabulary_text is not None:
        text = _inside(path, "drafter_vocabulary_text", preset.drafter_vocabulary_text)
        if not text.is_file():
            raise PresetError(f"{path}: drafter_vocabulary_text: there is no file {text}.")
        resolved["drafter_vocabulary_text"] = str(text)
    if _is_installed(preset.target.model) and not (preset.drafter and _is_on_hub(preset.drafter.model)):
        resolved["download_gb"] = 0.0
    return preset.model_copy(update=resolved)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PresetError(f"{path}: not UTF-8 text (byte {error.start}). Save the file as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise PresetError(f"{path}: not valid TOML: {error}.") from error
    except OSError as error:
        raise PresetError(f"{path}: cannot be read: {error.strerror}.") from error


def _files_in(folder: Path, origin: str = "") -> dict[str, Path]:
    if not folder.exists():
        raise PresetError(f"There is no presets folder {folder}{origin}. Presets are *.toml files in it.")
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise PresetError(f"The presets folder {folder}{origin} cannot be read: {error.strerror}.") from error
    files = {path.stem: path for path in paths if path.suffix == ".toml" and not path.name.startswith(".")}
    if not files:
        raise PresetError(f"The presets folder {folder}{origin} has no *.toml file, so no preset.")
    return files


def _resolved(path: Path, key: str, model: PresetModel) -> PresetModel:
    """The model by its place. A revision beside a package's file is its stand-in's."""
    name = _resolve_model(path, key, model)
    revision = None if name.startswith(PACKAGE) else model.revision
    return model.model_copy(update={"model": name, "revision": revision})


def _resolve_model(path: Path, key: str, model: PresetModel) -> str:
    """Return a Hub id unchanged, a local path as an absolute one, and the place of a package's file."""
    name = model.model
    where = f"{path}: {key}.model"
    folder = path.parent.resolve()
    if name.startswith(PACKAGE):
        if package_file(name) is None:
            raise PresetError(f"{where} must have the form {PACKAGE}NAME/FILE.gguf, not {name!r}.")
        if model.otherwise is not None and not _HUB_ID.fullmatch(model.otherwise):
            raise PresetError(
                f"{path}: {key}.otherwise must be a Hub id (owner/name), not {model.otherwise!r}."
            )
        if model.otherwise is None and model.revision is not None:
            raise PresetError(f"{path}: {key}.revision is for models on the Hub; {name!r} is in a package.")
        return name if model.otherwise is None or _is_installed(name) else model.otherwise
    if model.otherwise is not None:
        raise PresetError(f"{path}: {key}.otherwise is for files in packages, {PACKAGE}NAME/FILE.gguf.")
    if name.startswith("./"):
        local = _inside(path, f"{key}.model", name)
        if not (local.is_dir() or (local.is_file() and name.endswith(".gguf"))):
            raise PresetError(
                f"{where}: there is no folder or .gguf file {local}. Paths start at the file's own folder."
            )
        if model.revision is not None:
            raise PresetError(f"{path}: {key}.revision is for models on the Hub; {name!r} is here.")
        return str(local)
    if not (_HUB_ID.fullmatch(name) or _HUB_FILE.fullmatch(name)) or ".." in name:
        raise PresetError(
            f"{where} must be a Hub id (owner/name), a file on the Hub (owner/name:file.gguf) or a path "
            f"inside the presets folder that starts with ./, not {name!r}."
        )
    if (folder / name).is_dir():
        raise PresetError(
            f"{where}: {name!r} reads as a Hub id. Write ./{name} for the folder beside the file."
        )
    return name


def _is_installed(name: str) -> bool:
    file = package_file(name)
    return file is not None and file.path is not None


def _is_on_hub(name: str) -> bool:
    """Return True for a name that is neither a path in the preset's folder nor a file in a package."""
    return not name.startswith(("./", PACKAGE))


def _inside(path: Path, key: str, name: str) -> Path:
    """Make a path relative to the preset's folder absolute. Raises PresetError if it leaves that folder."""
    folder = path.parent.resolve()
    resolved = (folder / name).resolve()
    if not resolved.is_relative_to(folder):
        raise PresetError(f"{path}: {key} leaves the presets folder ({name!r}). Put it inside {folder}.")
    return resolved


def _explain(problem: ErrorDetails) -> str:
    """Return one of pydantic's errors in plain words, with the key as the TOML file has it."""
    location = [
        str(part) for part in problem["loc"] if not str(part).startswith(("function-", "is-instance"))
    ]
    key = ".".join(location)
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        table = PresetModel if len(location) > 1 else Preset
        prefix = ".".join(location[:-1])
        return (f"{prefix} has an " if prefix else "") + unknown_key(location[-1], table.model_fields)
    if kind == "pair":
        return problem["msg"]
    if kind == "settings":
        return f"{key}: {problem['msg'].rstrip('.')}"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "literal_error":
        return f"{key} must be {context['expected']}, not {value!r}"
    if kind in ("string_too_short", "string_pattern_mismatch"):
        wanted = "an address that starts with https://" if key == "license_page" else "text that is not empty"
        return f"{key} must be {wanted}, not {value!r}"
    if kind == "greater_than_equal":
        return f"{key} must be at least {context['ge']:g}, not {value!r}"
    wanted = _TYPES.get(kind)
    return f"{key} must be {wanted}, not {value!r}" if wanted else f"{key}: {problem['msg']}"


_TYPES = {
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "float_type": "a number",
    "tuple_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
