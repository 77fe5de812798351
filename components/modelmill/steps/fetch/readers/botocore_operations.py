"""The demo data: which AWS service does a sentence of API documentation belong to?

botocore carries one ``service-2.json.gz`` per service and API version. Each documented operation is a text (the first
two sentences of its documentation), its service the label. Real text, real labels, no network.

Three rules make it a fair task. The service's own names are masked, so that the label is not in the text. Of the 100
services with the most operations, a text that occurs under two says nothing about either and is dropped: WAF and WAF
Regional share nearly all of theirs. The 77 services to which the most distinct texts are left are taken.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from modelmill.core.errors import DataError
from modelmill.core.rows import Row
from modelmill.steps.fetch.contract import DataSource
from modelmill.steps.fetch.division import hold_out
from modelmill.steps.fetch.readers.raw import RawRow, Split
from modelmill.steps.fetch.sources.base import Fetched

SERVICES = 77
CANDIDATES = 100
SENTENCES = 2
TEST_SHARE = Fraction(1, 5)
MINIMUM_WORDS = 3
MASK = "[service]"
MAX_MODEL_BYTES = 64 << 20
"""The largest service model of botocore 1.44 is 4.6 MB once decompressed."""

_BLOCK_TAG = re.compile(
    r"</?(?:p|li|ul|ol|dl|dt|dd|div|note|important|fullname|h[1-6])\b[^>]*>|<br\s*/?>", re.IGNORECASE
)
_TAG = re.compile(r"<[^>]*>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"(])")
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+|[0-9]+")
_PROVIDER = re.compile(r"^(?:amazon\s*web\s*services|amazon|aws\s*elemental|aws)\s*[-_]?\s*(?=\w)", re.IGNORECASE)
_NO_NAMES = frozenset({"amazon", "aws", "service", "services", "api", "a", "the", "v2"})


def plain(documentation: str) -> str:
    """Documentation without its HTML, white space collapsed. botocore's HTML is generated: no script, no comment."""
    return " ".join(html.unescape(_TAG.sub("", _BLOCK_TAG.sub(" ", documentation))).split())


def first_sentences(text: str, count: int = SENTENCES) -> str:
    """The first ``count`` sentences of plain text."""
    return " ".join(_SENTENCE_END.split(text, maxsplit=count)[:count])


def names_of(label: str, metadata: Mapping[str, Any]) -> list[str]:
    """All names by which a service's documentation calls it, longest first.

    Args:
        label: The service's folder in botocore's data.
        metadata: The ``metadata`` of its model: ids, full name, abbreviation, signing name, endpoint prefix.
    """
    fields = ("serviceId", "serviceFullName", "serviceAbbreviation", "signingName", "endpointPrefix")
    found = {label, *(str(metadata[field]) for field in fields if metadata.get(field))}
    for name in list(found):
        found.update(re.findall(r"\(([^)]+)\)", name))
        found.add(re.sub(r"\s*\([^)]*\)", "", name))
    for name in list(found):
        found.add(name.removeprefix("api."))
        found.add(_PROVIDER.sub("", name))
    for name in list(found):
        found.add(re.sub(r"\s+services?$", "", name, flags=re.IGNORECASE))
    for name in list(found):
        found.add(re.sub(r"[\s-]*v?[0-9]+$", "", name, flags=re.IGNORECASE))
    kept = {name for name in found if name.strip() and name.lower() not in _NO_NAMES and not name.isdigit()}
    return sorted(kept, key=lambda name: (-len(name), name))


def mask_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """A pattern that finds any of ``names`` as a word, or as a part of a CamelCase word, however it is spaced."""
    alternatives: dict[str, None] = {}
    for name in names:
        spellings = {tuple(_TOKEN.findall(name)), tuple(re.findall(r"[A-Za-z]+|[0-9]+", name))}
        for tokens in sorted(spellings, key=lambda tokens: (-len(tokens), tokens)):
            if tokens:
                alternatives[r"[\s_.-]*".join(re.escape(token) for token in tokens)] = None
    either = "|".join(alternatives)
    return re.compile(rf"(?:(?<![A-Za-z0-9])|(?<=[a-z0-9])(?=[A-Z]))(?i:{either})(?:'s|s)?(?![a-z0-9])")


def texts_of(label: str, model: Mapping[str, Any]) -> dict[str, str]:
    """Operation → masked text, for the operations that are documented."""
    pattern = mask_pattern(names_of(label, model["metadata"]))
    texts = {}
    for name, operation in sorted(model["operations"].items()):
        text = first_sentences(plain(operation.get("documentation", "")))
        text = re.sub(
            rf"(?:(?:AWS|Amazon)\s+)?{re.escape(MASK)}(?:\s+{re.escape(MASK)})*", MASK, pattern.sub(MASK, text)
        )
        if len(text.replace(MASK, "").split()) >= MINIMUM_WORDS:
            texts[name] = text
    return texts


def _model(path: Path, where: str) -> Mapping[str, Any]:
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_MODEL_BYTES + 1)
        if len(content) > MAX_MODEL_BYTES:
            what = f"{path.name} is larger than {MAX_MODEL_BYTES >> 20} MiB once decompressed"
            raise DataError(what, where=where, fix="install botocore anew: this is not one of its service models")
        model = json.loads(content)
        if isinstance(model, dict) and {"metadata", "operations"} <= model.keys():
            return model
    except (OSError, EOFError, ValueError, zlib.error) as error:
        what = f"{path.name} is no service model of botocore: {error}"
        raise DataError(what, where=where, fix="install botocore anew") from None
    what = f"{path.name} is no service model of botocore: it has no metadata or no operations"
    raise DataError(what, where=where, fix="name botocore's data folder: package:botocore/data")


def read(files: Sequence[Fetched], splits: Sequence[str], data: DataSource, workspace: Path) -> Mapping[str, Split]:
    """The splits train and test; the seed decides which fifth of each service's texts is test."""
    models = {file.name.split("/")[0]: (file, _model(file.path, file.where)) for file in files}
    by_size = sorted(models, key=lambda label: (-len(models[label][1]["operations"]), label))
    services: dict[str, dict[str, Row]] = {}
    for label in by_size[:CANDIDATES]:
        file, model = models[label]
        services[label] = {}
        for operation, text in texts_of(label, model).items():
            row: Row = {"id": f"{file.name}:{operation}", "text": text, "label": label}
            services[label].setdefault(text.casefold(), row)
    services_of_text = Counter(key for rows_by_key in services.values() for key in rows_by_key)
    own = {
        label: [row for key, row in rows_by_key.items() if services_of_text[key] == 1]
        for label, rows_by_key in services.items()
    }
    largest = sorted(own, key=lambda label: (-len(own[label]), label))[:SERVICES]
    rows = [row for label in sorted(largest) for row in own[label]]
    test, train = hold_out(rows, lambda row: str(row["label"]), TEST_SHARE, f"{data.seed}:botocore-operations")
    folder = files[0].where.removesuffix(f"/{files[0].name}")
    return {
        name: Split(
            name,
            folder,
            "botocore",
            [RawRow(str(row["id"]), {"text": row["text"], "label": row["label"]}) for row in taken],
        )
        for name, taken in (("train", train), ("test", test))
    }
