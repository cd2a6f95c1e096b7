"""Model files inside installed Python packages, by names of the form `package:NAME/FILE.gguf`.

The package is located, not imported: its own dependencies may be missing. Knows nothing of models.
"""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "package:"
"""Beginning of such a name."""
_NAME = re.compile(r"package:(?P<package>\w+)/(?P<file>[^:]+\.gguf)")


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A `file` in the `package` of that name in Python."""

    package: str
    file: str

    @property
    def folders(self) -> list[Path]:
        """The package's folders here; none if it is not installed."""
        try:
            found = importlib.util.find_spec(self.package)
        except (ImportError, ValueError):  # modules without a specification, as __main__
            return []
        return [Path(folder) for folder in (found and found.submodule_search_locations) or ()]

    @property
    def path(self) -> Path | None:
        """The file here; None if the package is not installed or has no such file."""
        for folder in self.folders:
            path = folder / self.file
            with suppress(OSError):  # a name too long for a file
                if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                    return path
        return None

    @property
    def command(self) -> str:
        """The command that installs the package, by the usual spelling of its name on PyPI."""
        return f"pip install --no-deps {self.package.replace('_', '-')}"


def package_file(name: str) -> PackageFile | None:
    """Return the file of that name; None for a name of another form, or a path that leaves the package."""
    match = _NAME.fullmatch(name)
    return PackageFile(match["package"], match["file"]) if match and stays_inside(match["file"]) else None


def stays_inside(file: str) -> bool:
    """Return True for a relative path without a step up."""
    return not {"", ".", ".."} & set(file.split("/"))
