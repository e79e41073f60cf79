"""Who may associate, and what holds for them."""

from pathlib import Path

import pytest

from scp.accept.access import AccessList, Caller, UserIdentity, plain_address, plain_title
from scp.config.network import User
from scp.config.schema import AccessSection, LimitsSection, Peer
from scp.config.secrets import Secret

LIMITS = LimitsSection()
LISTED = AccessList(
    AccessSection(
        anyone=False,
        peers=(
            Peer(ae_title="CT1", address="10.0.0.0/24"),
            Peer(ae_title="ROAMING"),
            Peer(address="2001:db8::1"),
            Peer(ae_title="MR1", certificate_name="MR1.example"),
        ),
    ),
    LIMITS,
)


def caller(title: str, address: str, *names: str) -> Caller:
    return Caller(calling_ae_title=title, address=address, certificate_names=frozenset(names))


@pytest.mark.parametrize(
    ("title", "address", "admitted"),
    [
        ("CT1", "10.0.0.9", True),
        ("CT1", "10.0.1.9", False),
        ("CT2", "10.0.0.9", False),
        ("ROAMING", "192.0.2.1", True),
        ("ROAMING", "2001:db8::2", True),
        ("ANY", "2001:db8::1", True),
        ("ANY", "2001:db8::2", False),
        ("", "10.0.0.9", False),
        ("MR1", "10.0.0.9", False),
    ],
)
def test_a_peer_of_the_list_is_admitted(title: str, address: str, admitted: bool) -> None:
    assert (LISTED.standing(caller(title, address)) is not None) is admitted


@pytest.mark.parametrize(("name", "admitted"), [("mr1.example", True), ("ct1.example", False)])
def test_a_peer_with_a_certificate_name_shows_it(name: str, admitted: bool) -> None:
    found = LISTED.standing(caller("MR1", "192.0.2.1", "another.example", name))

    assert (found is not None) is admitted


def test_anyone_is_admitted_where_the_configuration_says_so() -> None:
    standing = AccessList(AccessSection(anyone=True), LIMITS).standing(
        caller("NOBODY", "192.0.2.1")
    )

    assert standing is not None
    assert standing.limits is LIMITS
    assert standing.may_call("WHATEVER")


def test_the_first_entry_that_fits_says_what_holds() -> None:
    first = Peer(
        ae_title="CT1",
        called_ae_titles=("A", "B"),
        max_associations=3,
        max_pdu_bytes=8192,
        idle_seconds=7.0,
    )
    access = AccessList(
        AccessSection(peers=(first, Peer(address="10.0.0.0/8", max_instance_bytes=1000))), LIMITS
    )

    special = access.standing(caller("CT1", "10.0.0.1"))
    near = access.standing(caller("CT2", "10.0.0.1"))
    far = access.standing(caller("CT2", "192.0.2.1"))

    assert special is not None
    assert near is not None
    assert far is not None
    assert (special.limits.max_pdu_bytes, special.limits.idle_seconds) == (8192, 7.0)
    assert special.limits.max_instance_bytes == LIMITS.max_instance_bytes
    assert special.max_associations == 3
    assert [special.may_call(title) for title in ("A", "B", "C")] == [True, True, False]
    assert near.limits.max_instance_bytes == 1000
    assert len({special.entry, near.entry, far.entry}) == 3


def user(name: str, passcode: str | None = None, kind: int | None = None) -> UserIdentity:
    return UserIdentity(
        kind=kind or (1 if passcode is None else 2),
        primary=name.encode(),
        secondary=(passcode or "").encode(),
        wants_answer=False,
    )


@pytest.mark.parametrize(
    ("mode", "given", "recognised"),
    [
        ("ignore", None, True),
        ("ignore", user("stranger"), True),
        ("refuse", None, True),
        ("refuse", user("anna"), False),
        ("optional", None, True),
        ("optional", user("anna"), True),
        ("optional", user("anna", "whatever"), True),
        ("optional", user("stranger"), False),
        ("optional", user("otto", "secret"), True),
        ("optional", user("otto", "wrong"), False),
        ("optional", user("otto"), False),
        ("optional", user("otto", "secret", kind=1), False),
        ("optional", user("anna", kind=3), False),
        ("optional", user("lost", "secret"), False),
        ("required", None, False),
        ("required", user("anna"), True),
    ],
)
def test_a_user_identity_is_recognised_as_the_configuration_says(
    mode: str, given: UserIdentity | None, recognised: bool, tmp_path: Path
) -> None:
    (tmp_path / "passcode").write_text("secret\n")
    users = (
        User(name="anna"),
        User(name="otto", passcode=Secret(file=tmp_path / "passcode")),
        User(name="lost", passcode=Secret(file=tmp_path / "nowhere")),
    )
    section = AccessSection.model_validate(
        {"user_identity": mode, "users": users if mode in ("optional", "required") else ()}
    )

    assert AccessList(section, LIMITS).recognises(given) is recognised


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_an_address_is_given_as_people_write_it(address: str, plain: str) -> None:
    assert plain_address(address) == plain


@pytest.mark.parametrize(
    ("title", "plain"),
    [
        (b"CT1".ljust(16), b"CT1".ljust(16)),
        (b"CT1".ljust(16, b"\0"), b"CT1".ljust(16)),
        (b" CT 1 \0\0", b"CT 1".ljust(16)),
        (b"CT\\1\n\xe4", b"CT_1__".ljust(16)),
        (b" " * 16, b"UNKNOWN".ljust(16)),
    ],
)
def test_a_title_is_given_as_the_standard_allows_it(title: bytes, plain: bytes) -> None:
    assert plain_title(title) == plain
