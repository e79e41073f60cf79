"""Where an instance lies in a folder or object store: a template whose values cannot leave it."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from scp.config.templates import parse_template
from scp.deliver.dicomfile import read_meta, read_values
from scp.errors import DeliveryError, MalformedError
from scp.model import DeliveryItem

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


class PathTemplate:
    """A destination's ``template``, which the configuration has checked."""

    def __init__(self, template: str) -> None:
        self._components = parse_template(template)
        self.tags = {
            text: tag for pieces in self._components for text, tag in pieces if tag is not None
        }
        """Keyword to tag, as 0xggggeeee."""

    def path_for(self, values: Mapping[str, str]) -> PurePosixPath:
        """The relative path of an instance; a keyword without a value counts as ``unknown``."""
        return PurePosixPath(
            *(
                _shortened(
                    "".join(t if tag is None else safe(values.get(t, "")) for t, tag in pieces)
                )
                for pieces in self._components
            )
        )

    def prefix_for(self, values: Mapping[str, str]) -> str:
        """The folders that everything with these values lies below, as far as they are known."""
        known: list[str] = []
        for pieces in self._components[:-1]:
            if any(tag is not None and text not in values for text, tag in pieces):
                break
            known.append("".join(t if tag is None else safe(values[t]) for t, tag in pieces))
        return "/".join(known)

    def pattern(self) -> re.Pattern[str]:
        """What the paths look like, numbered ones too; a group has the value of each keyword."""
        seen: set[str] = set()

        def written(text: str, tag: int | None) -> str:
            if tag is None:
                return re.escape(text)
            is_first = text not in seen
            seen.add(text)
            return f"(?P<{text}>[^/]+?)" if is_first else "[^/]+?"

        components = ["".join(written(*piece) for piece in each) for each in self._components]
        text, tag = self._components[-1][-1]
        end = re.escape(_split(text)[1]) if tag is None else ""
        name = components[-1].removesuffix(end)
        return re.compile("/".join([*components[:-1], rf"{name}(?:~\d+)?{end}"]))


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
