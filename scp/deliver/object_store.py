"""Delivery to an object store: whole files as objects, none of which is ever replaced."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from scp.config.templates import TEMPORARY
from scp.deliver.naming import PathTemplate, numbered, values_of
from scp.deliver.objects import (
    Section,
    chunks,
    connect,
    create,
    credentials_of,
    digest_of,
    same_bytes,
    size_of,
    told,
    unreadable,
    whole,
)
from scp.deliver.ports import Receipt, Verdict
from scp.errors import (
    DeliveryError,
    DigestMismatchError,
    PeerRejectedError,
    PeerUnavailableError,
)
from scp.model import DeliveryItem

LOST_IN_A_ROW: Final = 2
"""Objects that the store gives no answer to, before it counts as unavailable."""
PROBE: Final = f"{TEMPORARY}probe"
"""An object that shows whether the store keeps what is there."""

_PARTS_AT_ONCE: Final = 2
_LARGEST_COPY: Final = 5 * 2**30
"""S3 copies no more in one request; the others have higher limits."""


class ObjectStoreWriter:
    """One bucket or container, as :class:`scp.deliver.ports.Destination`.

    An object appears under its key complete. A key that is taken by the same bytes means already
    there; by others, the object gets ``~2`` (``~3``, ...) before its extension, as in a folder.
    """

    def __init__(self, name: str, section: Section) -> None:
        self.name = name
        self._section = section
        self._template = PathTemplate(section.keys)
        self._credentials: dict[str, str] | None = None
        self._store: ObjectStore | None = None
        self._is_proven = False

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        lost = 0
        store = self._connected()
        for item in items:
            if should_stop():
                return
            try:
                yield self._deliver_one(store, item)
                lost = 0
            except PeerUnavailableError as error:
                lost += 1
                yield _receipt(item, Verdict.TRANSIENT, str(error))
                if lost == LOST_IN_A_ROW:
                    raise

    def check(self) -> str:
        """Write a small object twice: the second must be refused."""
        self._is_proven = False
        self._connected()
        return f"{self._section.place} takes objects and replaces none"

    # -- the store -----------------------------------------------------------------------------

    def _connected(self) -> ObjectStore:
        """The store, with the credentials of today.

        Raises
        ------
        PeerRejectedError, PeerUnavailableError
            It cannot be used.
        """
        try:
            credentials = credentials_of(self._section)
        except DeliveryError as error:
            raise PeerUnavailableError(str(error)) from error
        if self._store is None or credentials != self._credentials:
            try:
                self._store = connect(self._section, credentials)
            except OSError as error:
                why = f"{error.filename}: {error.strerror}"
                raise PeerUnavailableError(f"the store cannot be used: {why}") from error
            except (BaseError, ValueError) as error:
                raise PeerUnavailableError("the store cannot be used as configured") from error
            self._credentials = credentials
        if not self._is_proven:
            self._prove(self._store)
            self._is_proven = True
        return self._store

    def _prove(self, store: ObjectStore) -> None:
        """See that create-if-absent is understood: a store that ignores it would replace objects."""
        key = f"{self._section.prefix}/{PROBE}" if self._section.prefix else PROBE
        try:
            if not all(create(store, key, b"dcmpress") for _ in range(2)):
                return
        except PeerUnavailableError:
            raise
        except DeliveryError as error:
            raise PeerRejectedError(str(error)) from error
        raise PeerRejectedError("the store ignores conditions, and would replace what is there")

    # -- one instance --------------------------------------------------------------------------

    def _deliver_one(self, store: ObjectStore, item: DeliveryItem) -> Receipt:
        try:
            source = os.open(item.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return _receipt(item, Verdict.LIMITED, f"file_unreadable: {error.strerror}")
        try:
            wanted = str(self._template.path_for(values_of(self._template, item, source)))
            key = wanted
            if item.sidecar is not None:
                key = self._store_sidecar(store, item.sidecar, source, wanted)
            return self._store_object(store, item, source, key, wanted)
        except DigestMismatchError as error:
            return _receipt(item, Verdict.HELD, f"digest_mismatch: {error}")
        except (PeerRejectedError, PeerUnavailableError):
            raise
        except DeliveryError as error:
            return _receipt(item, Verdict.LIMITED, str(error))
        finally:
            os.close(source)

    def _store_object(
        self, store: ObjectStore, item: DeliveryItem, source: int, key: str, wanted: str
    ) -> Receipt:
        size = os.fstat(source).st_size
        if size > self._section.max_put_bytes:
            if size > _LARGEST_COPY:
                return _receipt(
                    item, Verdict.REFUSED, "too_large: an object has at most 5 GiB here"
                )
            named = self._store_in_parts(store, item.sha256, source, key)
        else:
            named = _named(store, whole(source, item.sha256), source, key)
        if named is None:
            return _receipt(item, Verdict.ALREADY_THERE)
        detail = "" if named == wanted else "conflict: another object has its key"
        return _receipt(item, Verdict.DELIVERED, detail)

    def _store_in_parts(self, store: ObjectStore, sha256: str, source: int, key: str) -> str | None:
        """As :func:`_named`, where no request takes the whole.

        Uploads in parts replace what has their key, so one to a name that only the same bytes can
        have comes first, and a copy on the store's side, which can be told not to replace.
        """
        if same_bytes(store, source, key):
            return None
        digest = sha256 or digest_of(source)
        aside = str(PurePosixPath(key).with_name(f"{TEMPORARY}{digest[:32]}"))
        with told():
            obstore.put(
                store,
                aside,
                chunks(source, digest),
                use_multipart=True,
                chunk_size=self._section.max_put_bytes,
                max_concurrency=_PARTS_AT_ONCE,
            )
        try:
            return _named(store, aside, source, key)
        finally:
            with contextlib.suppress(DeliveryError), told():
                obstore.delete(store, aside)

    def _store_sidecar(self, store: ObjectStore, sidecar: Path, source: int, wanted: str) -> str:
        """Comes first, so that no object is there without it; returns the key left for its object.

        Both are numbered alike, for the sidecar is found by the key of its object.
        """
        try:
            record = os.open(sidecar, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(error) from error
        try:
            content = whole(record, "")
            for key in _numbered(wanted):
                if size_of(store, key) is not None and not same_bytes(store, source, key):
                    continue
                beside = f"{key}{sidecar.suffix}"
                if create(store, beside, content) or same_bytes(store, record, beside):
                    return key
        finally:
            os.close(record)
        raise AssertionError("numbers do not end")


def _named(store: ObjectStore, content: bytes | str, source: int, key: str) -> str | None:
    """Give content, or the object of a key, its key, numbered where taken; None: it is there already."""
    for candidate in _numbered(key):
        if create(store, candidate, content):
            return candidate
        if same_bytes(store, source, candidate):
            return None
    raise AssertionError("numbers do not end")


def _numbered(key: str) -> Iterator[str]:
    yield key
    path = PurePosixPath(key)
    for number in itertools.count(2):
        yield str(path.with_name(numbered(path.name, number)))


def _receipt(item: DeliveryItem, verdict: Verdict, detail: str = "") -> Receipt:
    syntax = item.transfer_syntax if verdict.is_done else ""
    return Receipt(
        instance=item.instance, verdict=verdict, status="", detail=detail, transfer_syntax=syntax
    )
