"""Certificates, keys and secrets that cannot be used today, wherever a configuration names some."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scp import tls
from scp.config.faults import dotted
from scp.config.network import ListenerTls, RequestorTls
from scp.config.remote import DicomwebDestination
from scp.config.schema import Config, DicomDestination, FolderDestination
from scp.config.secrets import ClientTls, Secret
from scp.config.values import Section
from scp.config.yaml_tree import Fault, Tree
from scp.config.yaml_tree import Path as Place
from scp.errors import CertificateError, DeliveryError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    place: Place
    """Of the section that names them."""
    ca: Path | None
    certificate: Path | None = None
    key: Path | None = None
    is_server: bool = False


def faults_of_certificates(config: Config, tree: Tree) -> Iterator[Fault]:
    """What is missing, damaged, does not fit or has expired."""
    for files in _all(config):
        attempts: list[Callable[[], object]] = []
        if (certificate := files.certificate) is not None:
            attempts.append(
                lambda f=files, c=certificate: tls.examine(c, f.key, is_server=f.is_server)  # type: ignore[misc]
            )
        if files.ca is not None:
            attempts.append(lambda ca=files.ca: tls.examine_authorities(ca))  # type: ignore[misc]
        for attempt in attempts:
            try:
                attempt()
            except CertificateError as error:
                path = (*files.place, error.part)
                yield Fault(*tree.place(path), f"{dotted(path)}: {error}")


def faults_of_secrets(config: Config, tree: Tree) -> Iterator[Fault]:
    """Files of secrets that cannot be read; variables are those of the node, not of who checks."""
    for path, secret in _secrets(config, ()):
        if secret.file is not None:
            try:
                secret.read()
            except DeliveryError as error:
                place = (*path, "file")
                yield Fault(*tree.place(place), f"{dotted(place)}: {error}")


def _secrets(value: Any, path: Place) -> Iterator[tuple[Place, Secret]]:
    match value:
        case Secret():
            yield path, value
        case Section():
            for name in type(value).model_fields:
                yield from _secrets(getattr(value, name), (*path, name))
        case dict():
            for name, each in value.items():
                yield from _secrets(each, (*path, name))
        case list() | tuple():
            for index, each in enumerate(value):
                yield from _secrets(each, (*path, index))


def _all(config: Config) -> Iterator[_Files]:
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None:
            yield _files(("listeners", index, "tls"), listener.tls, is_server=True)
    for index, peer in enumerate(config.access.peers):
        if peer.report_to is not None and peer.report_to.tls is not None:
            yield _files(("access", "peers", index, "report_to", "tls"), peer.report_to.tls)
    for name, section in config.destinations.items():
        place = ("destinations", name)
        match section:
            case DicomDestination() | DicomwebDestination():
                if section.tls is not None:
                    yield _files((*place, "tls"), section.tls)
            case FolderDestination():
                pass
            case _:
                yield _Files(place=place, ca=section.ca)
    if config.ledger.tls is not None:
        yield _files(("ledger", "tls"), config.ledger.tls)
    yield _Files(place=("notices",), ca=config.notices.ca)


def _files(
    place: Place, section: ListenerTls | RequestorTls | ClientTls, *, is_server: bool = False
) -> _Files:
    return _Files(
        place=place,
        ca=section.ca,
        certificate=section.certificate,
        key=section.key,
        is_server=is_server,
    )
