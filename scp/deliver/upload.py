"""The request of STOW-RS (PS3.18 section 10.5.1): whole files, read and checked while they are sent."""

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from scp.deliver import stow
from scp.deliver.dicomfile import read_meta
from scp.deliver.forms import Form
from scp.deliver.web import Answer, Buffer, WebClient
from scp.errors import DeliveryError, DigestMismatchError, MalformedError

_CHUNK: Final = 1 << 20


def store(client: WebClient, forms: Sequence[Form], *, names_syntax: bool) -> Answer:
    """Send all in one request; with ``names_syntax`` each part's Content-Type has it.

    Raises
    ------
    PeerUnavailableError
        There is no answer.
    MalformedError, DigestMismatchError, DeliveryError
        A file is not what it was: the request was broken off.
    """
    boundary = f"dcmpress-{uuid.uuid4().hex}"
    parts: list[tuple[Form, bytes, int]] = []
    for form in forms:
        try:
            size = form.path.stat().st_size
        except OSError as error:
            raise DeliveryError(f"file_unreadable: {error.strerror}") from error
        named = form.transfer_syntax if names_syntax else ""
        parts.append((form, stow.part_header(boundary, named), size))
    fixed = len(stow.PART_END) * len(parts) + len(stow.closing(boundary))
    return client.request(
        "POST",
        "/studies",
        body=_body(parts, boundary),
        size=fixed + sum(len(header) + size for _, header, size in parts),
        headers={"Content-Type": stow.content_type(boundary), "Accept": stow.JSON},
    )


def _body(parts: list[tuple[Form, bytes, int]], boundary: str) -> Iterator[Buffer]:
    """All bytes, read while they are sent; each is overwritten by the next."""
    buffer = memoryview(bytearray(_CHUNK))
    for form, header, size in parts:
        yield header
        yield from _content(form, size, buffer)
        yield stow.PART_END
    yield stow.closing(boundary)


def _content(form: Form, size: int, buffer: memoryview) -> Iterator[Buffer]:
    """The file; the last of it only when all of it is what was committed."""
    digest = hashlib.sha256()
    try:
        descriptor = os.open(form.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            meta = read_meta(descriptor)
            if meta.transfer_syntax != form.transfer_syntax:
                raise MalformedError(f"it does not hold a dataset in {form.transfer_syntax}")
            committed = form.sha256 or form.dataset_sha256
            digested_from = 0 if form.sha256 else meta.dataset_start
            offset = 0
            while offset < size:
                window = buffer[: min(_CHUNK, size - offset)]
                count = os.preadv(descriptor, [window], offset)
                if not count:
                    raise DeliveryError("file_unreadable: it became shorter while it was sent")
                digest.update(window[max(0, digested_from - offset) : count])
                offset += count
                if offset == size and committed and digest.hexdigest() != committed:
                    raise DigestMismatchError("the file is not the one that was committed")
                yield window[:count]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeliveryError(f"file_unreadable: {error.strerror}") from error
