"""Reads an A-ASSOCIATE-RQ (PS3.8 9.3.2) item by item, and keeps what counts.

Each presentation context is answered as it comes and then forgotten, so that a request of the
greatest length costs no more memory than a usual one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct, pack
from typing import Final, Protocol

from scp.accept.access import plain_title
from scp.accept.contexts import Answer, Proposal
from scp.commitment import PUSH_MODEL
from scp.errors import MalformedError

MAX_REQUEST_BYTES: Final = 2**20
"""128 contexts with every syntax have 400 KiB."""
MAX_ITEM_BYTES: Final = 2**14
"""Of one that is kept or answered: a context with 500 syntaxes, a user identity."""

MAX_REMEMBERED_BYTES: Final = 2**10
"""Of a context whose answer is remembered: one with 30 syntaxes."""
MAX_REMEMBERED: Final = 2**10
"""Contexts whose answers are remembered: those of eight sorts of senders, in little more than 1 MiB."""

_HEADER: Final = Struct(">BxL")
_FIXED_BYTES: Final = 68
"""Between the header of the PDU and its first item: version, titles, reserved (PS3.8 Table 9-11)."""
_ITEM: Final = Struct(">BxH")

_APPLICATION_CONTEXT: Final = 0x10
_CONTEXT: Final = 0x20
_ABSTRACT_SYNTAX: Final = 0x30
_TRANSFER_SYNTAX: Final = 0x40
_USER_INFORMATION: Final = 0x50
_USER_ITEMS: Final = (0x51, 0x52, 0x53, 0x55, 0x58)
"""Maximum length, implementation class and version, operations window, user identity. The others
(extended negotiation) change nothing here: to answer none of them is to decline (PS3.7 D.3.3)."""
_ROLES: Final = 0x54
_ROLES_OF_COMMITMENT: Final = pack(">H", len(PUSH_MODEL)) + PUSH_MODEL.encode()
"""Roles matter for storage commitment alone; two bytes follow (PS3.7 D.3.3.4)."""


class Source(Protocol):
    """Where the bytes come from."""

    def take_all(self, length: int) -> bytes: ...

    def drop(self, length: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What counts of one A-ASSOCIATE-RQ."""

    pdu: bytes
    """The same request without contexts and what else is not looked at, its titles as allowed."""
    answers: tuple[Answer, ...]
    """To its contexts, in their order."""


class Answers:
    """What each context is answered; the same bytes are read once, whoever sends them.

    A sender proposes the same 128 contexts in each association, and many open one an instance.
    """

    def __init__(self, answer: Callable[[Proposal], Answer]) -> None:
        self._answer = answer
        self._remembered = lru_cache(MAX_REMEMBERED)(self._read)

    def to(self, context: bytes) -> Answer:
        """To one presentation context item, without its header (PS3.8 Table 9-13).

        Raises
        ------
        MalformedError
            It has an even ID, none, or no abstract syntax, or an item in it does not fit.
        """
        if len(context) > MAX_REMEMBERED_BYTES:
            return self._read(context)
        return self._remembered(context)

    def _read(self, context: bytes) -> Answer:
        proposal = _proposal(context)
        if proposal.context_id % 2 == 0:
            raise MalformedError(f"a presentation context of the even ID {proposal.context_id}")
        return self._answer(proposal)


def read_request(source: Source, length: int, answers: Answers) -> Request:
    """Read the body of an A-ASSOCIATE-RQ, ``length`` bytes.

    Raises
    ------
    MalformedError
        An item does not fit or is too long, there are two contexts of one ID, which bounds their
        number to 128, or one of an even ID, without an ID or an abstract syntax. Perhaps not all
        of the PDU was read.
    """
    body = _Items(source, length)
    fixed = body.take(_FIXED_BYTES)
    answered: dict[int, Answer] = {}
    kept = bytearray()
    for kind, size in body.items():
        if kind == _CONTEXT:
            answer = answers.to(body.take(size))
            if answer.context_id in answered:  # Data in it could be of one or the other.
                raise MalformedError(f"two presentation contexts of ID {answer.context_id}")
            answered[answer.context_id] = answer
        elif kind == _APPLICATION_CONTEXT and not kept:
            kept += _item(kind, body.take(size))
        elif kind == _USER_INFORMATION:
            kept += _item(kind, _user_information(body.inside(size)))
        else:
            body.drop(size)  # PS3.8 9.3.1: what is not known is ignored
    titles = plain_title(fixed[4:20]) + plain_title(fixed[20:36])
    content = fixed[:4] + titles + fixed[36:] + kept
    return Request(pdu=_HEADER.pack(0x01, len(content)) + content, answers=tuple(answered.values()))


class _Items:
    """Items that follow each other in a given number of bytes."""

    def __init__(self, source: Source, length: int) -> None:
        self._source = source
        self._left = length

    def items(self) -> Iterator[tuple[int, int]]:
        """Type and length of each; who iterates takes or drops the body before going on."""
        while self._left:
            yield _ITEM.unpack(self.take(_ITEM.size))

    def take(self, length: int) -> bytes:
        if length > MAX_ITEM_BYTES:
            raise MalformedError(f"an item of {length} bytes")
        self._spend(length)
        return self._source.take_all(length)

    def drop(self, length: int) -> None:
        self._spend(length)
        self._source.drop(length)

    def inside(self, length: int) -> "_Items":
        """The items of one item."""
        self._spend(length)
        return _Items(self._source, length)

    def _spend(self, length: int) -> None:
        if length > self._left:
            raise MalformedError("an item is longer than what holds it")
        self._left -= length


def _user_information(body: _Items) -> bytes:
    """The first of each kind that is looked at."""
    kept: dict[int, bytes] = {}
    for kind, size in body.items():
        if kind in _USER_ITEMS and kind not in kept:
            kept[kind] = _item(kind, body.take(size))
        elif kind == _ROLES and size == len(_ROLES_OF_COMMITMENT) + 2:
            roles = body.take(size)
            if roles.startswith(_ROLES_OF_COMMITMENT):
                kept[kind] = _item(kind, roles)
        else:
            body.drop(size)
    return b"".join(kept.values())


def _proposal(context: bytes) -> Proposal:
    if len(context) < 4:
        raise MalformedError("a presentation context without an ID")
    abstract: str | None = None
    transfers: list[str] = []
    offset = 4
    while offset < len(context):
        start = offset + _ITEM.size
        if start > len(context):
            raise MalformedError("a PDU ends inside an item")
        kind, size = _ITEM.unpack_from(context, offset)
        offset = start + size
        if offset > len(context):
            raise MalformedError("an item is longer than what holds it")
        # Latin-1 reads whatever a peer sends; what is no UID is refused later, its context alone.
        value = context[start:offset].decode("latin-1").rstrip("\0 ")
        if kind == _ABSTRACT_SYNTAX:
            abstract = value
        elif kind == _TRANSFER_SYNTAX:
            transfers.append(value)
    if abstract is None:
        raise MalformedError("a presentation context without an abstract syntax")
    return Proposal(
        context_id=context[0], abstract_syntax=abstract, transfer_syntaxes=tuple(transfers)
    )


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body
