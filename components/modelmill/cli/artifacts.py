"""Commands on models and bundles: bench, verify."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from modelmill.cli.options import JsonOption
from modelmill.cli.output import megabytes, print_json, print_table, print_text
from modelmill.cli.progress import stderr_progress
from modelmill.core import hardware, lineage
from modelmill.core import signature as signatures
from modelmill.core.bundle import BundleCheck
from modelmill.core.errors import UsageError
from modelmill.core.evidence import Cell
from modelmill.core.stores import open_store


def local_directory(location: str) -> Path:
    """The directory of an artifact that is named by a path, or by its URI in a store on S3 (then a verified copy)."""
    if location.startswith("s3://"):
        prefix, separator, digest = location.rstrip("/").rpartition("/artifacts/")
        if not separator:
            what = f"{location} is no artifact's URI"
            raise UsageError(what, where=location, fix="give s3://BUCKET/PREFIX/artifacts/DIGEST, as run prints it")
        return open_store(prefix).get_artifact(f"sha256:{digest}", stderr_progress())
    path = Path(location.removeprefix("file:"))
    if not path.is_dir():
        what = f"there is no directory {path}"
        raise UsageError(what, where=location, fix="give the directory, or its s3:// URI, that run prints")
    return path


_PYTORCH = "pytorch"


def _cell(text: str) -> Cell:
    batch, _, length = text.lower().partition("x")
    if not (batch.isdigit() and length.isdigit() and int(batch) and int(length)):
        what = f"{text!r} is no shape of input"
        raise UsageError(what, where="--cell", fix="write BATCHxLENGTH, as in --cell 1x128")
    try:
        return Cell(batch_size=int(batch), sequence_length=int(length))
    except ValidationError as problem:
        what = f"{text!r} is too large a shape: {problem.errors()[0]['msg'].lower()}"
        raise UsageError(what, where="--cell", fix="name a smaller one") from None


def _checkpoint_of(directory: Path) -> Path:
    """The checkpoint that a stored model artifact was made from."""
    folder, digest = directory.resolve().parent, directory.resolve().name
    found = None
    if folder.name == "artifacts" and re.fullmatch("[0-9a-f]{64}", digest):
        store = open_store(str(folder.parent))
        found = lineage.ancestor(store, f"sha256:{digest}", "checkpoint")
    if found is None:
        what = f"the checkpoint that {directory} was made from is not known"
        raise UsageError(what, where="--against pytorch", fix="name it: --against CHECKPOINT_DIRECTORY")
    return store.get_artifact(found, stderr_progress())


def bench(
    artifacts: Annotated[
        list[str], typer.Argument(metavar="ARTIFACT...", help="Model artifacts or bundles: directories or s3:// URIs.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="REFERENCE",
            help="pytorch: the checkpoint the first artifact was made from; or a directory.  [default: the first]",
        ),
    ] = None,
    cells: Annotated[
        list[str] | None, typer.Option("--cell", metavar="BATCHxLENGTH", help="Shape of input; repeatable.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time budget of a cell.")] = 10.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of tokens and order.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Time models in turn in one process, with intervals; what lies inside the machine's noise is called so."""
    shapes = [_cell(text) for text in cells or ["1x16", "1x128", "32x128"]]
    directories = [local_directory(location) for location in artifacts]
    # What it takes to load torch is paid only by who benches.
    engine = importlib.import_module("modelmill.measuring.bench")
    subjects = [engine.Subject(_name(path, index), path) for index, path in enumerate(directories)]
    reference = subjects[0].name
    if against is not None:
        path = _checkpoint_of(directories[0]) if against == _PYTORCH else local_directory(against)
        reference = _PYTORCH if against == _PYTORCH else "reference"
        subjects.insert(0, engine.Subject(reference, path))
    result = engine.bench(
        subjects,
        shapes,
        threads=hardware.threads(),
        seconds=seconds,
        seed=seed,
        progress=stderr_progress(),
        against=reference,
    )
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    print_text(f"{result.hardware_class}; ratios to {result.against}, {result.confidence:.0%} intervals")
    for cell in result.cells:
        low, high = cell.noise_ratio_ci
        print_table(
            f"\nbatch {cell.batch_size}, length {cell.sequence_length} ({cell.rounds} rounds; "
            f"{result.against} against itself: {low:.3f} to {high:.3f})",
            ["model", "ms p50", "ms p95", "speed-up", "interval", "difference"],
            [
                (
                    row.name,
                    f"{row.ms_p50:.3f}",
                    f"{row.ms_p95:.3f}",
                    f"{row.speedup:.2f}",
                    f"{row.speedup_ci[0]:.2f} to {row.speedup_ci[1]:.2f}",
                    row.difference,
                )
                for row in cell.rows
            ],
        )


def _name(path: Path, index: int) -> str:
    """A short name for a model: the first digits of a stored artifact's digest, else its folder."""
    name = path.resolve().name
    short = name[:12] if re.fullmatch("[0-9a-f]{64}", name) else name
    return f"{index + 1}:{short}"


def verify(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="The bundle's directory, or its URI in a store.")],
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PUBLIC.pem", help="The signer's public key: the bundle must be signed by it."),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="The signature to check.  [default: model.sig in the bundle]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle offline: every file, the digest, that the evidence is about these models, and the signature."""
    directory = local_directory(bundle)
    # What it takes to load a library of ciphers is paid only by who checks a signer.
    signer = importlib.import_module("modelmill.core.keys").public_key(key) if key else None
    found = signatures.verify(directory, signer, signature)
    if as_json:
        print_json({**vars(found), "lanes": dict(found.lanes)})
        return
    print_text(f"{found.model}: whole, {_signed(found)}")
    print_text(f"digest: {found.digest}")
    print_text(f"lanes:  {', '.join(f'{name} at {path}' for name, path in found.lanes.items())}")
    print_text(f"files:  {found.files} and {found.evidence} of evidence, {megabytes(found.size_bytes)}")


def _signed(check: BundleCheck) -> str:
    if check.signer is None:
        return "unsigned"
    if check.signature == "checked":
        return f"signed by {check.signer}"
    return f"signed, it says, by {check.signer}: give --key PUBLIC.pem to check that"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(bench)
    app.command()(verify)
