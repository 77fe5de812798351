"""The demo data: real sentences, real labels, and no label in its text."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import botocore
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from modelmill.core.progress import SilentProgress
from modelmill.steps.fetch.contract import DataSource
from modelmill.steps.fetch.readers import botocore_operations as reader
from modelmill.steps.fetch.selection import choose_data
from modelmill.steps.fetch.sources.base import Purpose
from modelmill.steps.fetch.sources.registry import open_source

DATA = DataSource(source="package:botocore/data", reader="botocore-operations")
FIELDS = ("serviceId", "serviceFullName", "serviceAbbreviation", "signingName", "endpointPrefix")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("botocore")
    files = open_source(DATA.source, Purpose.DATA, None).fetch(choose_data(DATA), None, workspace, SilentProgress())
    return reader.read(files, ["train", "test"], DATA, workspace)


def test_seventy_seven_services_give_almost_ten_thousand_distinct_texts(splits):
    rows = [row for split in splits.values() for row in split.rows]
    texts = {row.values["text"].casefold() for row in rows}
    assert len(texts) == len(rows)
    assert 9_000 < len(rows) < 11_000
    counts = Counter(row.values["label"] for row in rows)
    assert len(counts) == 77
    assert min(counts.values()) >= 60
    assert len({row.id for row in rows}) == len(rows)


def test_a_fifth_of_every_service_is_test(splits):
    train, test = (Counter(row.values["label"] for row in splits[name].rows) for name in ("train", "test"))
    for label in train:
        assert abs(test[label] - (train[label] + test[label]) / 5) <= 1
    assert abs(sum(test.values()) * 5 - sum(test.values()) - sum(train.values())) <= 5


def test_no_name_of_a_service_survives_in_its_own_texts(splits):
    names: dict[str, list[re.Pattern[str]]] = {}
    for label in {row.values["label"] for row in splits["train"].rows}:
        newest = max((Path(botocore.__file__).parent / "data" / label).glob("*/service-2.json.gz"))
        metadata = json.loads(gzip.decompress(newest.read_bytes()))["metadata"]
        told = {label, *(metadata[key] for key in FIELDS if metadata.get(key))}
        told |= {re.sub(r"^(?:Amazon|AWS)\s*", "", name) for name in told}
        names[label] = [
            re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE) for name in told
        ]
    leaks = [
        (row.values["label"], row.values["text"])
        for split in splits.values()
        for row in split.rows
        for name in names[row.values["label"]]
        if name.search(row.values["text"].replace(reader.MASK, ""))
    ]
    assert leaks == []


def test_texts_hold_no_html_and_at_most_two_sentences(splits):
    texts = [row.values["text"] for split in splits.values() for row in split.rows]
    assert not [
        text for text in texts if re.search(r"</?(?:p|code|a|b|i|ul|li|note)\b|&(?:amp|lt|gt|quot);|\s\s", text)
    ]
    assert max(map(len, texts)) < 2500


@pytest.mark.parametrize(
    ("label", "metadata", "text", "masked"),
    [
        (
            "ec2",
            {"serviceId": "EC2"},
            "Stops an Amazon EC2 instance (AwsEc2Instance).",
            "Stops an [service] instance (Aws[service]Instance).",
        ),
        ("sagemaker", {"serviceId": "SageMaker"}, "A SageMakerImage in sagemaker", "A [service]Image in [service]"),
        (
            "connect",
            {"serviceFullName": "Amazon Connect Service"},
            "Connects a connection to Connect",
            "[service] a connection to [service]",
        ),
        (
            "s3control",
            {"serviceId": "S3 Control", "signingName": "s3"},
            "S3 buckets, S3-Control, s3control",
            "[service] buckets, [service], [service]",
        ),
        ("apigateway", {"serviceId": "API Gateway"}, "An API of API Gateway", "An API of [service]"),
        (
            "iotsitewise",
            {"serviceFullName": "AWS IoT SiteWise", "serviceId": "IoTSiteWise"},
            "An IoT SiteWise asset",
            "An [service] asset",
        ),
        ("macie2", {"serviceId": "Macie2"}, "Enables Amazon Macie.", "Enables [service]."),
    ],
)
def test_a_service_is_masked_however_its_name_is_spelt(label, metadata, text, masked):
    model = {"metadata": metadata, "operations": {"Do": {"documentation": f"<p>{text}</p> <p>More words here.</p>"}}}
    first = reader.texts_of(label, model)["Do"]
    assert first.startswith(masked)


def test_a_text_of_two_services_is_dropped_and_one_of_one_service_kept_once(tmp_path):
    files = []
    for label, colour in (("one", "red"), ("two", "blue")):
        operations = {
            "Shared": {"documentation": "<p>Deletes the specified rule group.</p>"},
            **{f"Own{n}": {"documentation": f"Opens door {n} of the {colour} house."} for n in range(10)},
            "Again": {"documentation": f"opens door 1 of the {colour} house."},
            "Undocumented": {},
        }
        path = tmp_path / label / "2020-01-01" / "service-2.json.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(json.dumps({"metadata": {}, "operations": operations}).encode()))
        files.append(path)
    data = DataSource(source=f"file:{tmp_path}", reader="botocore-operations")
    fetched = open_source(data.source, Purpose.DATA, None).fetch(
        choose_data(data), None, tmp_path / "x", SilentProgress()
    )
    found = reader.read(fetched, ["train", "test"], data, tmp_path)
    rows = [row for split in found.values() for row in split.rows]
    assert len(rows) == 20
    assert not [row for row in rows if "rule group" in row.values["text"]]
    assert sorted(row.id for row in rows)[0] == "one/2020-01-01/service-2.json.gz:Again"
    assert len(found["test"].rows) == 4


@pytest.mark.slow
def test_tfidf_and_logistic_regression_tell_six_in_seven_services_apart(splits):
    texts = {name: [row.values["text"] for row in split.rows] for name, split in splits.items()}
    labels = {name: [row.values["label"] for row in split.rows] for name, split in splits.items()}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=20, max_iter=300).fit(vectorizer.fit_transform(texts["train"]), labels["train"])
    accuracy = model.score(vectorizer.transform(texts["test"]), labels["test"])
    assert 0.84 < accuracy < 0.90, accuracy
