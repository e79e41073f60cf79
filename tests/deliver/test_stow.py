"""What a server answers to STOW-RS, whatever it is, is understood or says nothing."""

import pytest

from scp.deliver.stow import XML, StoreAnswer, read_answer

DECLARED = (
    '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><NativeDicomModel>'
    '<DicomAttribute tag="00081190" vr="UR"><Value number="1">&d;</Value></DicomAttribute>'
    "</NativeDicomModel>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_answer_that_declares_entities_is_not_read(encoding: str) -> None:
    body = f'<?xml version="1.0" encoding="{encoding}"?>{DECLARED}'.encode(encoding)

    assert read_answer(XML, body) == StoreAnswer(is_silent=True)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dicom+json", b"[" * 100_000),
        ("application/dicom+json", b"\xff\xfe\x00"),
        ("application/dicom+json", b'{"00081198": {"Value": 7}}'),
        (XML, b"<NativeDicomModel>" * 100_000),
        ("text/html", b"<html><p>It works!</html>"),
        ("", b""),
    ],
)
def test_what_is_no_dataset_says_nothing(kind: str, body: bytes) -> None:
    assert read_answer(kind, body) == StoreAnswer(is_silent=True)
