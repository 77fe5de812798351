"""What every source of models and data promises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Protocol

from modelmill.core.errors import DataError, InputError, ModelError, SourceError
from modelmill.core.manifest import canonical
from modelmill.core.progress import Bar, Progress

Choose = Callable[[Sequence[str]], Sequence[str]]
"""Takes the names in a source's folder, gives those to read; raises `InputError` where they are not what is needed."""


class Purpose(StrEnum):
    """What a source is read for; the recipe's section of that name."""

    MODEL = "model"
    DATA = "data"

    @property
    def field(self) -> str:
        """The recipe's field that names the source."""
        return f"{self.value}.source"

    @property
    def error(self) -> type[InputError]:
        """What is raised when the source is not as it must be."""
        return ModelError if self is Purpose.MODEL else DataError


@dataclass(frozen=True)
class Fetched:
    """One file, copied and verified.

    Attributes:
        name: POSIX path below the source's folder.
        path: The copy.
        where: The original, for messages.
        sha256: Hex.
        size: Bytes.
    """

    name: str
    path: Path
    where: str
    sha256: str
    size: int


class Source(Protocol):
    """A folder somewhere. Methods raise `InputError` for what the user can mend, `SourceError` where it is away."""

    def pin(self, choose: Choose) -> str:
        """What identifies the bytes that ``choose`` picks: read cheaply, nothing is copied."""
        ...

    def fetch(self, choose: Choose, pin: str | None, directory: Path, progress: Progress) -> list[Fetched]:
        """Copy what ``choose`` picks into ``directory``, as it was when it was pinned.

        Raises:
            SourceError: It is no longer what was pinned.
        """
        ...


def digest_of(identities: Mapping[str, str]) -> str:
    """``sha256:…`` over names and what identifies their bytes."""
    return "sha256:" + hashlib.sha256(canonical(sorted(identities.items()))).hexdigest()


def destination(directory: Path, name: str, purpose: Purpose) -> Path:
    """Where a source's file is copied to, its folders made.

    Raises:
        InputError: The name, which comes from outside, would leave ``directory``, or holds a backslash.
    """
    path = PurePosixPath(name)
    if "\\" in name:
        # On other systems it separates folders.
        what = f"the source lists a file named {name!r}, and no name here may hold a backslash"
        raise purpose.error(what, where=purpose.field, fix="rename the file")
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        what = f"the source lists a file named {name!r}, which would leave its folder"
        raise purpose.error(what, where=purpose.field, fix="do not use this source")
    target = directory / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def write_chunks(chunks: Iterable[bytes], target: Path, bar: Bar) -> tuple[str, int]:
    """Write a stream to a file as it comes.

    Returns:
        Its sha256 in hex and its size in bytes.
    """
    hasher, size = hashlib.sha256(), 0
    with target.open("wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
            hasher.update(chunk)
            size += len(chunk)
            bar.advance(len(chunk))
    return hasher.hexdigest(), size


def check_pin(found: str, pin: str | None, where: str) -> None:
    """Compare what was read with what was pinned.

    Raises:
        SourceError: They differ.
    """
    if pin is not None and found != pin:
        what = "the files changed between being pinned and being read"
        raise SourceError(what, where=where, fix="run again when nobody writes there")
