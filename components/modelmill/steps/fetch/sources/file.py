"""``file:PATH``: a folder on this machine or a mounted volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from modelmill.core.errors import DeploymentError, SourceError
from modelmill.core.manifest import CHUNK, sha256_of
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

DEPTH = 3
"""Folders deep that are listed: botocore's SERVICE/VERSION/FILE is the deepest layout that is read."""
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")


def chunks_of(path: Path) -> Iterator[bytes]:
    """A file's bytes, a mebibyte at a time."""
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def list_folder(root: Path, depth: int = DEPTH) -> Iterator[str]:
    """Names of the regular files in a folder, links to files included, hidden ones left out."""
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path.name
        elif depth > 1 and path.is_dir() and not path.is_symlink():
            yield from (f"{path.name}/{name}" for name in list_folder(path, depth - 1))


class Folder:
    """A folder whose pin is the digest of the chosen files' names and sha256."""

    def __init__(self, root: Path, purpose: Purpose, mounts: Sequence[Path] | None) -> None:
        self._root, self._purpose = root, purpose
        self._mounts = None if mounts is None else [mount.resolve() for mount in mounts]

    def pin(self, choose: Choose) -> str:
        """Digest of what ``choose`` picks; reads those files whole."""
        try:
            return digest_of({name: sha256_of(path) for name, path in self._chosen(choose).items()})
        except OSError as error:
            raise unreadable(error, self._root, self._purpose) from None

    def fetch(self, choose: Choose, pin: str | None, directory: Path, progress: Progress) -> list[Fetched]:
        """Copy what ``choose`` picks."""
        fetched = []
        try:
            chosen = self._chosen(choose)
            total = sum(path.stat().st_size for path in chosen.values())
            with progress.bar(f"copy {self._purpose}", total, "bytes") as bar:
                for name, path in chosen.items():
                    target = destination(directory, name, self._purpose)
                    sha256, size = write_chunks(chunks_of(path), target, bar)
                    fetched.append(Fetched(name, target, str(self._root / name), sha256, size))
        except OSError as error:
            raise unreadable(error, self._root, self._purpose) from None
        check_pin(digest_of({file.name: file.sha256 for file in fetched}), pin, str(self._root))
        return fetched

    def _chosen(self, choose: Choose) -> dict[str, Path]:
        chosen = {}
        for name in choose(list(list_folder(self._root))):
            chosen[name] = (self._root / name).resolve(strict=True)
            check_mounts(self._root / name, self._mounts, self._purpose)
        return chosen


def unreadable(error: OSError, root: Path, purpose: Purpose) -> Exception:
    """What to raise for a file that cannot be read: the user's to mend where a right is missing, else outside."""
    name = Path(error.filename or root)
    if isinstance(error, PermissionError):
        what = f"{name.name} may not be read by this user"
        return purpose.error(what, where=str(name), fix="give this user the right to read it")
    what = f"{name.name} cannot be read: {error.strerror}"
    return SourceError(what, where=str(name), fix="run again when the disk or the volume is well")


def check_mounts(path: Path, mounts: Sequence[Path] | None, purpose: Purpose) -> None:
    """Check that a path, its links followed, lies in a mount.

    Raises:
        DeploymentError: It does not.
    """
    real = path.resolve()
    if mounts is None or any(real.is_relative_to(mount) for mount in mounts):
        return
    leads = "" if real == path else f" (which leads to {real})"
    allowed = ", ".join(str(mount) for mount in mounts) or "none"
    what = f"{path}{leads} lies outside of the directories that file: sources may be read from"
    raise DeploymentError(what, where=purpose.field, fix=f"put it in one of the deployment's mounts: {allowed}")


def open_source(path: str, purpose: Purpose, mounts: Sequence[Path] | None) -> Folder:
    """The folder at an absolute path.

    Raises:
        InputError: It is relative, missing, an archive or a single file.
        DeploymentError: It lies outside of the mounts.
    """
    root = Path(path)
    if not path or not root.is_absolute():
        what = f"file:{path} is not an absolute path"
        raise purpose.error(what, where=purpose.field, fix="give a path that begins with /; recipes may be relative")
    check_mounts(root, None if mounts is None else [mount.resolve() for mount in mounts], purpose)
    try:
        if root.is_dir():
            return Folder(root, purpose, mounts)
        exists = root.exists()
        beside = [entry.name for entry in root.parent.iterdir()] if not exists and root.parent.is_dir() else []
    except PermissionError as error:
        what = f"{root} may not be read by this user"
        raise purpose.error(
            what, where=str(error.filename or root), fix="give this user the right to read it"
        ) from None
    if not exists:
        near = get_close_matches(root.name, beside, n=1)
        hint = f"; did you mean {root.parent / near[0]}?" if near else ""
        what = f"there is no folder {root}{hint}"
        raise purpose.error(what, where=purpose.field, fix="correct the path")
    if root.name.lower().endswith(ARCHIVES):
        what = f"{root.name} is an archive, and archives are not unpacked"
        raise purpose.error(what, where=str(root), fix="unpack it and name the folder")
    what = f"{root.name} is a file, and a source is a folder"
    raise purpose.error(what, where=str(root), fix=f"name its folder: file:{root.parent}")
