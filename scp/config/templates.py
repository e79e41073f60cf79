"""Templates of paths: where an instance lies in a folder or in an object store."""

import string
from typing import Final

from scp.config.match_keys import PublicTag, has_text, parse_key

TEMPORARY: Final = ".dcmpress-"
"""Names of files that are being written begin so."""

type Piece = tuple[str, int | None]
"""Text as it is, or a keyword and its tag."""


def parse_template(template: str) -> list[list[Piece]]:
    """The components of a relative path, each of several pieces; keywords stand in braces.

    Raises
    ------
    ValueError
        It names no attribute with a text, could lead out of the folder, or gives every instance the
        same name.
    """
    components: list[list[Piece]] = [[]]
    for literal, keyword in _fields(template):
        for index, text in enumerate(literal.split("/")):
            if index:
                components.append([])
            if text:
                components[-1].append((text, None))
        if keyword is not None:
            components[-1].append((keyword, _tag_of(keyword)))
    for component in components:
        fixed = "".join(text for text, tag in component if tag is None)
        if not component or (len(component) == 1 and fixed in (".", "..")):
            hint = "a relative path without empty parts, . and .."
            raise ValueError(f"{template!r} is no template: {hint}")
        if not fixed.isprintable() or fixed.startswith(TEMPORARY):
            raise ValueError(f"{template!r} is no template: {fixed!r} cannot be part of a name")
    if all(tag is None for component in components for _, tag in component):
        hint = "it gives every instance the same name, name {SOPInstanceUID} in it"
        raise ValueError(f"{template!r} is no template: {hint}")
    return components


def check_template(value: str) -> str:
    """As :func:`parse_template` takes it."""
    parse_template(value)
    return value


def _fields(template: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} is no template: {error}") from error
    if any(specification or conversion for _, _, specification, conversion in parsed):
        raise ValueError(f"{template!r} is no template: only {{Keyword}} is understood in braces")
    return [(literal, keyword) for literal, keyword, _, _ in parsed]


def _tag_of(keyword: str) -> int:
    found = parse_key(keyword) if keyword else None
    if not isinstance(found, PublicTag):
        raise ValueError(f"{{{keyword}}} is no DICOM keyword")
    if not has_text(found):
        raise ValueError(f"{{{keyword}}} has no text that could be part of a name")
    return found.tag
