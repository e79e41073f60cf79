"""Where an instance lies in a folder or object store: a template whose values cannot leave it."""

import hashlib
import re
import string
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from pydicom.datadict import tag_for_keyword

from scp.deliver.dicomfile import read_meta, read_values
from scp.errors import ConfigError, DeliveryError, MalformedError
from scp.model import DeliveryItem

TEMPORARY: Final = ".dcmpress-"
"""Names of files that are being written begin so."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._+=@,-]|^\.|\.$")
_LONGEST_VALUE: Final = 64
_LONGEST_COMPONENT: Final = 200
"""Below the 255 of common file systems, with room for a temporary name and a number."""
_EXTENSION: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,9}$")
_IDENTITY: Final = {
    "SOPClassUID": "sop_class_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
}

type _Piece = tuple[str, bool]
"""(text, whether it is a keyword)."""


class PathTemplate:
    """A destination's ``template``, checked."""

    def __init__(self, template: str) -> None:
        """Parse it.

        Raises
        ------
        ConfigError
            It names no DICOM keyword, or could lead out of the folder.
        """
        self._components: list[list[_Piece]] = [[]]
        self.tags: dict[str, int] = {}
        """Keyword to tag, as 0xggggeeee."""
        for literal, keyword in _parsed(template):
            for index, text in enumerate(literal.split("/")):
                if index:
                    self._components.append([])
                if text:
                    self._components[-1].append((text, False))
            if keyword is not None:
                tag = tag_for_keyword(keyword) if keyword else None
                if tag is None:
                    raise ConfigError([f"template {template!r}: {keyword!r} is no DICOM keyword"])
                self.tags[keyword] = tag
                self._components[-1].append((keyword, True))
        for component in self._components:
            fixed = "".join(text for text, is_keyword in component if not is_keyword)
            if not component or (len(component) == 1 and fixed in (".", "..")):
                raise ConfigError([f"template {template!r}: '.', '..' and empty parts are refused"])
            if not fixed.isprintable() or fixed.startswith(TEMPORARY):
                raise ConfigError([f"template {template!r}: {fixed!r} cannot be part of a name"])
        if not self.tags:
            raise ConfigError([f"template {template!r}: it gives every instance the same name"])

    def path_for(self, values: Mapping[str, str]) -> PurePosixPath:
        """The relative path of an instance; a keyword without a value counts as ``unknown``."""
        return PurePosixPath(
            *(
                _shortened(
                    "".join(safe(values.get(t, "")) if is_key else t for t, is_key in pieces)
                )
                for pieces in self._components
            )
        )


def values_of(template: PathTemplate, item: DeliveryItem, source: int) -> dict[str, str]:
    """What the template asks for, of the instance in the open file ``source``.

    Raises
    ------
    DeliveryError
        The file cannot be read.
    """
    values: dict[str, str] = {}
    unread: dict[int, str] = {}
    for keyword, tag in template.tags.items():
        if keyword in _IDENTITY:
            values[keyword] = getattr(item.identity, _IDENTITY[keyword])
        else:
            unread[tag] = keyword
    if unread:
        try:
            found = read_values(source, read_meta(source), unread)
        except MalformedError:
            return values
        except OSError as error:
            raise DeliveryError(f"file_unreadable: {error.strerror}") from error
        values |= {unread[tag]: value for tag, value in found.items()}
    return values


def safe(value: str) -> str:
    """``value`` as part of a path component; a hash of it follows where anything was changed."""
    value = value.strip("\0 ")
    if not value:
        return "unknown"
    clean = _UNSAFE.sub("_", value)[:_LONGEST_VALUE]
    return clean if clean == value else f"{clean}-{_hash(value)}"


def numbered(name: str, number: int) -> str:
    """``a.dcm`` as ``a~2.dcm``."""
    stem, extension = _split(name)
    return f"{stem}~{number}{extension}"


def _parsed(template: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError([f"template {template!r}: {error}"]) from error
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ConfigError([f"template {template!r}: only {{Keyword}} is understood in braces"])
    return [(literal, keyword) for literal, keyword, _, _ in parsed]


def _shortened(component: str) -> str:
    if len(component.encode()) <= _LONGEST_COMPONENT:
        return component
    stem, extension = _split(component)
    kept = stem.encode()[: _LONGEST_COMPONENT - 30].decode("utf-8", "ignore")
    return f"{kept}-{_hash(component)}{extension}"


def _split(name: str) -> tuple[str, str]:
    """A name and its extension, which a UID has none of."""
    found = _EXTENSION.search(name)
    return (name[: found.start()], found.group()) if found else (name, "")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
