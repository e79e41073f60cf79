"""The messages of STOW-RS: instances in a multipart request, and what its answer says of each.

PS3.18 section 10.5; the answer is a dataset with the Store Instances Response Module (table
10.5.3-1) in JSON (PS3.18 annex F) or as Native DICOM Model (PS3.19 annex A.1).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree

from scp.errors import MalformedError

JSON: Final = "application/dicom+json"
XML: Final = "application/dicom+xml"

PART_END: Final = b"\r\n"

_REFERENCED: Final = "00081199"
_FAILED: Final = "00081198"
_OTHER_FAILURES: Final = "0008119A"
_INSTANCE: Final = "00081155"
_FAILURE_REASON: Final = "00081197"
_WARNING_REASON: Final = "00081196"
_DECLARATION: Final = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)

type _Dataset = dict[str, list[Any]]
"""Values by tag in hexadecimal; those of a sequence are datasets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """What became of the instances of one request, by SOP Instance UID."""

    stored: dict[str, int] = field(default_factory=dict)
    """The warning reason; 0: none."""
    failed: dict[str, int] = field(default_factory=dict)
    """The failure reason; 0: none was given."""
    others: tuple[int, ...] = ()
    """Failure reasons of instances that the server could not name."""
    is_silent: bool = False
    """It is no dataset at all, and says nothing of any instance."""


def part_header(boundary: str, transfer_syntax: str) -> bytes:
    """What stands before the bytes of a file; with an empty syntax its Content-Type names none."""
    parameter = f"; transfer-syntax={transfer_syntax}" if transfer_syntax else ""
    return f"--{boundary}\r\nContent-Type: application/dicom{parameter}\r\n\r\n".encode("ascii")


def closing(boundary: str) -> bytes:
    """What stands after the last part."""
    return f"--{boundary}--\r\n".encode("ascii")


def content_type(boundary: str) -> str:
    """Of the whole request."""
    return f'multipart/related; type="application/dicom"; boundary={boundary}'


def read_answer(media_type: str, body: bytes) -> StoreAnswer:
    """Understand the answer to a store request.

    What is no dataset, nothing at all or an error page for one, is silent.
    """
    try:
        dataset = read_dataset(media_type, body)
    except MalformedError:
        dataset = {}
    if not dataset:
        return StoreAnswer(is_silent=True)
    stored = dict(_reasons(dataset.get(_REFERENCED, ()), _WARNING_REASON))
    failed = dict(_reasons(dataset.get(_FAILED, ()), _FAILURE_REASON))
    others = dataset.get(_OTHER_FAILURES, ())
    return StoreAnswer(
        stored={uid: reason for uid, reason in stored.items() if uid not in failed},
        failed=failed,
        others=tuple(_number(each, _FAILURE_REASON) for each in others if isinstance(each, dict)),
    )


def read_dataset(media_type: str, body: bytes) -> _Dataset:
    """The first dataset of an answer; empty where there is none.

    Raises
    ------
    MalformedError
        It is neither JSON nor XML, or something else.
    """
    body = body.strip()
    if not body:
        return {}
    try:
        if "xml" in media_type.lower() or body.startswith(b"<"):
            return _of_xml(body)
        return _of_json(json.loads(body))
    except (ValueError, LookupError, ElementTree.ParseError) as error:
        raise MalformedError("the answer is neither JSON nor XML") from error
    except RecursionError as error:
        raise MalformedError("the answer is nested too deeply") from error


def _of_json(value: Any) -> _Dataset:
    if isinstance(value, list):  # Of datasets; STOW-RS answers with one.
        value = value[0] if value else {}
    if not isinstance(value, dict):
        raise MalformedError("the answer holds no dataset")
    dataset: _Dataset = {}
    for tag, attribute in value.items():
        values = attribute.get("Value", []) if isinstance(attribute, dict) else None
        if isinstance(values, list):
            dataset[tag.upper()] = [_of_json(v) if isinstance(v, dict) else v for v in values]
    return dataset


def _of_xml(body: bytes) -> _Dataset:
    # In UTF-16 a declaration would not be found.
    if _DECLARATION.search(body) or b"\0" in body:
        raise MalformedError("the answer declares entities, which no dataset needs")
    return _of_attributes(ElementTree.fromstring(body))  # noqa: S314 - it declares no entities


def _of_attributes(parent: ElementTree.Element) -> _Dataset:
    dataset: _Dataset = {}
    for attribute in parent:
        tag = attribute.get("tag")
        if _local(attribute) != "DicomAttribute" or not tag:
            continue
        values: list[Any] = []
        for child in attribute:
            if _local(child) == "Item":
                values.append(_of_attributes(child))
            elif _local(child) == "Value":
                values.append((child.text or "").strip())
        dataset[tag.upper()] = values
    return dataset


def _local(element: ElementTree.Element) -> str:
    """The name without its namespace."""
    return element.tag.rpartition("}")[2]


def _reasons(items: Sequence[Any], tag: str) -> Iterator[tuple[str, int]]:
    for item in items:
        if not isinstance(item, dict):
            continue
        for uid in item.get(_INSTANCE, ())[:1]:
            yield str(uid).strip("\0 "), _number(item, tag)


def _number(item: _Dataset, tag: str) -> int:
    """An unsigned short, which some servers write as text; 0 where it is none."""
    for value in item.get(tag, ())[:1]:
        try:
            return int(value) & 0xFFFF
        except (ValueError, TypeError):
            return 0
    return 0
