"""Loading a configuration: what it gives, and how its faults are reported."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scp.config import network, schema
from scp.config.load import load, parse
from scp.config.network import ListenerSection, RequestorTls
from scp.config.schema import Config, DicomDestination, FolderDestination
from scp.config.values import Section
from scp.config.yaml_tree import MAX_BYTES
from scp.errors import ConfigError
from scp.model import Deliver, Form, Priority
from tests.conftest import REPOSITORY

CONTRACT = """\
node:
  ae_title: DCMPRESS
  bind: 0.0.0.0
  port: 11112
  data: ./data
access:
  anyone: true
  peers:
    - {ae_title: CT1, address: 10.0.0.0/24}
series:
  quiet_seconds: 15
  max_open_seconds: 900
codec:
  backend: auto
  verify: independent
htj2k:
  decompositions: 5
  code_block: [64, 64]
  progression: RPCL
enhanced: {max_frames: 2000, max_bytes: 1GiB, restore_record: embedded}
destinations:
  archive: {kind: folder, path: ./data/archive}
  pacs:    {kind: dicom, host: 10.0.0.9, port: 104, ae_title: PACS, calling_ae_title: DCMPRESS}
rules:
  - name: plain radiographs at once
    match: {Modality: [CR, DX, US]}
    convert: htj2k
    deliver: at_once
    send_to: [archive, pacs]
  - name: research volumes
    match: {called_ae_title: RESEARCH, Modality: [CT, MR, PT], ImageType: {not: LOCALIZER}}
    convert: enhanced
    quiet_seconds: 120
    send_to: [archive]
default: {convert: htj2k, send_to: [archive]}
"""


def faults_of(text: str | bytes) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as raised:
        parse(content, "c.yaml")
    return raised.value.faults


def config_of(text: str) -> Config:
    return parse(text.encode(), "c.yaml")


def test_without_a_file_everything_goes_to_the_archive_as_htj2k() -> None:
    config = load(None)

    assert config.node.ae_title == "DCMPRESS"
    assert config.node.port == 11112
    assert config.destinations == {
        "archive": FolderDestination(kind="folder", path=Path("data/archive"))
    }
    assert config.default.convert is Form.HTJ2K
    assert config.default.send_to == ("archive",)
    assert config.rules == ()


def test_the_whole_contract_is_understood() -> None:
    config = config_of(CONTRACT)

    first, second = config.rules
    assert config.access.peers[0].address == "10.0.0.0/24"
    assert config.enhanced.max_bytes == 2**30
    assert isinstance(config.destinations["pacs"], DicomDestination)
    assert first.deliver is Deliver.AT_ONCE
    assert first.send_to == ("archive", "pacs")
    assert second.quiet_seconds == 120
    assert second.convert is Form.ENHANCED


@pytest.mark.parametrize("name", ["dcmpress.yaml", "minimal.yaml"])
def test_the_shipped_examples_have_no_fault(name: str) -> None:
    config = load(REPOSITORY / "config" / name)

    assert config.node.port == 11112


def test_the_minimal_example_says_what_the_node_does_without_a_file() -> None:
    assert load(REPOSITORY / "config" / "minimal.yaml") == load(None)


def test_the_reference_names_every_key() -> None:
    reference = (REPOSITORY / "config" / "reference.md").read_text()
    names = set(re.findall(r"`\w+`|\*\*\w+\*\*", reference))
    sections = [
        value
        for module in (schema, network)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Section)
    ]
    keys = {key for section in sections for key in section.model_fields}

    assert {key for key in keys if not {f"`{key}`", f"**{key}**"} & names} == {"kind"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "rules:\naccess:\n"])
def test_what_is_left_empty_is_as_if_left_out(text: str) -> None:
    assert config_of(text) == load(None)


def test_the_default_archive_lies_in_the_data_folder() -> None:
    config = config_of("node: {data: /srv/dicom}")

    archive = config.destinations["archive"]
    assert isinstance(archive, FolderDestination)
    assert archive.path == Path("/srv/dicom/archive")


def test_paths_stay_relative_to_the_current_directory(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("node: {data: ./data}")

    assert load(file).node.data == Path("data")


def test_scalars_keep_the_text_that_was_written() -> None:
    config = config_of(
        "node: {ae_title: NO}\n"
        "codec: {verify: off}\n"
        "rules: [{name: 007, send_to: [archive], match: {AccessionNumber: 0123, Modality: [NO]}}]\n"
    )

    assert config.node.ae_title == "NO"
    assert config.codec.verify == "off"
    assert config.rules[0].name == "007"
    assert repr(config.rules[0].match["AccessionNumber"]) == "AnyOf(values=('0123',))"
    assert repr(config.rules[0].match["Modality"]) == "AnyOf(values=('NO',))"


def test_three_faults_are_reported_in_one_run_in_file_order() -> None:
    faults = faults_of(
        "rules:\n"
        "  - name: a\n"
        "    match: {Modalty: CT}\n"
        "    send_to: [pacs]\n"
        "node:\n"
        "  port: eleven\n"
    )

    assert faults == [
        "c.yaml:3:13: rules[0].match.Modalty: unknown DICOM keyword 'Modalty':"
        " did you mean 'Modality'?",
        "c.yaml:4:15: rules[0].send_to: no destination is called 'pacs'",
        "c.yaml:6:9: node.port: must be a whole number, not 'eleven'",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("node: [", "1:8: not valid YAML: while parsing a flow node, "),
        ("node:\n\tport: 1", "2:1: not valid YAML: while scanning for the next token, "),
        ("node: {}\nnode: {}", "2:1: the key 'node' is here twice, first in line 1"),
        ("nod: {}", "1:1: unknown key 'nod': did you mean 'node'?"),
        ("zzz: {}", "1:1: unknown key 'zzz'"),
        ("node: {prt: 1}", "1:8: unknown key 'prt' in node: did you mean 'port'?"),
        ("node: {<<: {port: 1}}", "1:8: unknown key '<<' in node"),
        ("node: 5", "1:7: node: must be a mapping of keys and values, not '5'"),
        ("- a", "1:1: must be a mapping of sections, not a list"),
        ("node: {port: }", "1:13: node.port: must be a whole number, not nothing"),
        ("node: {port: 70000}", "1:14: node.port: must be at most 65535, not '70000'"),
        ("node: {ae_title: [A]}", "1:18: node.ae_title: must be text, not a list"),
        ("node: {bind: 999.1.1.1}", "1:14: node.bind: '999.1.1.1' is no IP address or host name"),
        ("node: {bind: 10.0.0}", "1:14: node.bind: '10.0.0' is no IP address or host name"),
        ("node: {bind: any port}", "1:14: node.bind: 'any port' is no IP address or host name"),
        ("node: {bind: '[::1]'}", "1:14: node.bind: '[::1]' is no IP address or host name"),
        ("node: {bind: ''}", "1:14: node.bind: '' is no IP address or host name"),
        ("node: {data: ~/x}", "1:14: node.data: ~ is not expanded here: write the whole path"),
        ("node: !x {}", "1:7: the tag '!x' is not used in a configuration"),
        ("? [a]\n: b", "1:3: a key must be plain text"),
        ("access: {anyone: maybe}", "1:18: access.anyone: must be true or false, not 'maybe'"),
        ("access: {anyone: false}", "1:9: access: nobody could send: name some peers, or say anyo"),
        ("access: {anyone: no, peers: []}", "1:9: access: nobody could send: name some peers"),
        ("access: {peers: [{}]}", "1:18: access.peers[0]: a peer needs an ae_title, an address or"),
        ("access: {peers: [{adress: A}]}", "1:19: unknown key 'adress' in access.peers[0]: did"),
        ("series: {quiet_seconds: 0}", "1:25: series.quiet_seconds: must be greater than 0, not"),
        ("series: {conflict: oldest}", "1:20: series.conflict: must be"),
        ("series: {quiet_seconds: inf}", "1:25: series.quiet_seconds: must be a number, not 'inf'"),
        ("codec: {workers: 1025}", "1:18: codec.workers: must be at most 1024, not '1025'"),
        ("limits: {max_pdu_bytes: 2MiB}", "1:25: limits.max_pdu_bytes: must be at most 1048576,"),
        ("limits: {pdu_seconds: 1.0e+19}", "1:23: limits.pdu_seconds: must be at most 86400"),
        ("limits: {idle_seconds: 0.0000001}", "1:24: limits.idle_seconds: must be at least 0.01"),
        (
            "limits: {max_associations: 1000000}",
            "1:28: limits.max_associations: must be at most 10",
        ),
        ("limits: {reserve: 5X}", "1:19: limits.reserve: '5X' is no size: write it like 500MB,"),
        ("codec: {backend: gpuu}", "1:18: codec.backend: must be auto, gpu or cpu, not 'gpuu':"),
        ("htj2k: {code_block: [64, 65]}", "1:26: htj2k.code_block[1]: must be 32 or 64, not '65'"),
        ("htj2k: {code_block: 64}", "1:21: htj2k.code_block: must be a list like [a, b], not '64'"),
        ("rules: [{send_to: []}]", "1:9: rules[0]: the key 'name' is missing"),
        ("rules: [{name: default, send_to: []}]", "1:16: rules[0].name: the name 'default' is res"),
        ("rules: [{name: a, send_to: archive}]", "1:28: rules[0].send_to: must be a list like"),
        ("rules: [{name: a, send_to: [archve]}]", "1:29: rules[0].send_to: no destination is call"),
        ("default: {send_to: [archive, archive]}", "1:30: default.send_to: 'archive' is named tw"),
        ("destinations: {x: {path: a}}", "1:19: destinations.x: the key 'kind' is missing: folder"),
        ("listeners: [{}]", "1:13: listeners[0]: the key 'port' is missing"),
        ("listeners: [{port: 1, tsl: {}}]", "1:23: unknown key 'tsl' in listeners[0]: did you mea"),
        ("listeners: [{port: 1, tls: {ky: a}}]", "1:29: unknown key 'ky' in listeners[0].tls: did"),
        ("access: {user_identity: no}", "1:25: access.user_identity: must be ignore, refuse, opt"),
        ("access: {user_identity: required}", "1:9: access: nobody could send: name some users"),
        ("access: {users: [{name: a}]}", "1:9: access: users have no use here: say user_identity"),
        ("access: {users: [{nam: a}]}", "1:19: unknown key 'nam' in access.users[0]: did you"),
        (
            "access: {users: [{name: a, passcode: {}}]}",
            "1:38: access.users[0].passcode: a secret is given by file or by environment",
        ),
        (
            "access: {peers: [{certificate_name: a}]}",
            "1:19: access.peers[0].certificate_name: no listener asks for certificates",
        ),
        ("listeners: [{port: 1, tls: {}}]", "1:23: listeners[0].tls: the key 'certificate' is mi"),
        (
            "listeners: [{port: 1, tls: {certificate: c, ca: a}}]",
            "1:28: listeners[0].tls: ca has no use here: say client_certificate: optional or req",
        ),
        (
            "listeners: [{port: 1, tls: {certificate: c, client_certificate: required}}]",
            "1:28: listeners[0].tls: client_certificate: required needs a ca that signs certifica",
        ),
        (
            "listeners: [{port: 1}, {port: 2}, {port: 1, bind: 0.0.0.0}]",
            "1:42: listeners[2].port: the port is listeners[0]'s already",
        ),
        (
            "node: {port: 104}\nlisteners: [{port: 1}]",
            "1:8: node.port: listeners say where the node listens: take this out",
        ),
        (
            "destinations: {a b: {kind: folder, path: x}}",
            "1:16: destinations.a b: 'a b' is no dest",
        ),
        (
            "destinations: {pacs: {kind: dicom, host: h, port: 1, ae_title: A}}",
            "1:1: a default section is needed where no destination is called 'archive'",
        ),
        (
            "destinations: {archive: {kind: folder, path: a, template: '../{SOPInstanceUID}'}}",
            "1:59: destinations.archive.template: '../{SOPInstanceUID}' is no template",
        ),
        ("commit: {timeout: 24}", "1:19: commit.timeout: '24' is no duration: write it like 90s,"),
        ("commit: {timeout: 0s}", "1:19: commit.timeout: must be greater than 0, not '0s'"),
        ("commit: {when: received}", "1:16: commit.when: must be delivered or never, not 'receiv"),
        (
            "delete_originals: {after: never, plus: 30d}",
            "1:19: delete_originals: plus has no use here: after: never keeps them for good",
        ),
        ("delete_originals: {plus: 30}", "1:26: delete_originals.plus: '30' is no duration: write"),
        ("delete_originals: {plus: 36501d}", "1:26: delete_originals.plus: must be at most 31536"),
        (
            "delete_originals: {after: deliverd}",
            "1:27: delete_originals.after: must be delivered, ",
        ),
        ("commit: {to: []}", "1:14: commit.to: must not be empty"),
        ("commit: {to: [archve]}", "1:15: commit.to: no destination is called 'archve': did you"),
        (
            "access: {peers: [{address: 10.0.0.1, report_to: {host: a, port: 104}}]}",
            "1:18: access.peers[0]: a peer with report_to needs an ae_title",
        ),
        (
            "access: {peers: [{ae_title: A, report_to: {host: a, prot: 104}}]}",
            "1:53: unknown key 'prot' in access.peers[0].report_to: did you mean 'port'?",
        ),
        (
            "destinations: {archive: {kind: dicom, host: h, port: 1, ae_title: A, "
            "commitment: {timeuot: 1h}}}",
            "1:83: unknown key 'timeuot' in destinations.archive.commitment: did you mean",
        ),
    ],
)
def test_a_fault_is_named_at_its_place(text: str, fault: str) -> None:
    faults = faults_of(text)

    assert any(line.startswith(f"c.yaml:{fault}") for line in faults), faults


VOUCHING = """\
delete_originals: {after: committed}
destinations:
  archive: {kind: folder, path: a}
  pacs: {kind: dicom, host: h, port: 1, ae_title: A, commitment: true}
  old: {kind: dicom, host: h, port: 1, ae_title: A, commitment: false}
"""


def test_originals_wait_for_commitment_only_where_somebody_is_asked_for_it() -> None:
    rules = """\
rules:
  - {name: good, send_to: [archive, pacs]}
  - {name: nobody, send_to: [archive, old]}
  - {name: nowhere, send_to: []}
  - {name: not asked for, send_to: [archive], delete_originals: {after: delivered, plus: 0}}
default: {send_to: [archive]}
"""
    message = (
        "delete_originals: after: committed needs a destination with commitment: true here; name "
        "one, or let this rule say after: delivered"
    )
    assert faults_of(VOUCHING + rules) == [
        f"c.yaml:8:29: rules[1].send_to: {message}",
        f"c.yaml:9:30: rules[2].send_to: {message}",
        f"c.yaml:11:20: default.send_to: {message}",
    ]


def test_the_default_that_nobody_wrote_has_nobody_to_vouch_either() -> None:
    assert [fault[:48] for fault in faults_of(VOUCHING)] == [
        "c.yaml:1:27: default.send_to: delete_originals: "
    ]


def test_a_rule_keeps_its_originals_as_it_says_or_as_all_do() -> None:
    config = config_of(
        "delete_originals: {plus: 30d}\n"
        "rules:\n"
        "  - {name: a, send_to: [archive], delete_originals: {after: never}}\n"
        "  - {name: b, send_to: [archive], delete_originals: }\n"
    )

    assert config.delete_originals.plus == 30 * 86400
    assert config.rules[0].delete_originals is not None
    assert config.rules[0].delete_originals.after == "never"
    assert config.rules[1].delete_originals is None
    assert config_of("").delete_originals.after == "delivered"
    assert config_of("delete_originals: {plus: 0}").delete_originals.plus == 0


@pytest.mark.parametrize(
    "bind", ["0.0.0.0", "::", "::1", "fe80::1%eth0", "localhost", "pacs-1.ward_2.example.org"]
)
def test_the_node_may_listen_on_an_address_or_a_name(bind: str) -> None:
    assert config_of(f"node: {{bind: '{bind}'}}").node.bind == bind


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("30 d", 2_592_000)]
)
def test_a_duration_has_a_unit(written: str, seconds: float) -> None:
    assert config_of(f"commit: {{timeout: {written}}}").commit.timeout == seconds


@pytest.mark.parametrize(
    ("written", "timeout"), [("false", None), ("true", 86400), ("{timeout: 1h, port: 105}", 3600)]
)
def test_storage_commitment_is_asked_for_by_a_word_or_a_mapping(
    written: str, timeout: float | None
) -> None:
    config = config_of(
        "destinations: {archive: {kind: dicom, host: h, port: 1, ae_title: A, "
        f"commitment: {written}}}}}"
    )

    destination = config.destinations["archive"]
    assert isinstance(destination, DicomDestination)
    assert (destination.commitment and destination.commitment.timeout) == timeout


def test_without_listeners_the_node_listens_on_its_port() -> None:
    config = config_of("node: {port: 104, bind: 10.0.0.1}")

    assert config.listeners == ()
    assert config.ports == (ListenerSection(port=104, bind="10.0.0.1"),)


def test_listeners_say_where_the_node_listens() -> None:
    config = config_of(
        "listeners:\n"
        "  - {port: 104}\n"
        "  - {port: 0, bind: '::1', ae_titles: [A, B], tls: {certificate: c.pem, key: k.pem}}\n"
        "  - {port: 0, bind: '::1'}\n"
    )

    plain, secure, _ = config.ports
    assert (plain.port, plain.bind, plain.ae_titles, plain.tls) == (104, "0.0.0.0", (), None)
    assert secure.ae_titles == ("A", "B")
    assert secure.tls is not None
    assert secure.tls.client_certificate == "none"


def test_peers_and_users_have_options_of_their_own() -> None:
    config = config_of(
        "access:\n"
        "  peers:\n"
        "    - {certificate_name: CT1.Example, max_pdu_bytes: 16KiB, called_ae_titles: [A]}\n"
        "  user_identity: optional\n"
        "  users: [{name: Anna}, {name: otto, passcode: {environment: OTTO}}]\n"
        "listeners: [{port: 1, tls: {certificate: c, ca: a, client_certificate: optional}}]\n"
    )

    (peer,) = config.access.peers
    anna, otto = config.access.users
    assert (peer.certificate_name, peer.max_pdu_bytes) == ("ct1.example", 16384)
    assert (anna.name, anna.passcode) == ("Anna", None)
    assert otto.passcode is not None
    assert otto.passcode.environment == "OTTO"


def test_two_rules_of_one_name_are_a_fault() -> None:
    faults = faults_of(
        "rules:\n  - {name: a, send_to: [archive]}\n  - {name: a, send_to: [archive]}\n"
    )

    assert faults == ["c.yaml:3:12: rules[1].name: the name 'a' is taken by the rule in line 2"]


@pytest.mark.parametrize("where", ["default: {convert: enhanced, send_to: [archive]}", ""])
def test_enhanced_without_verification_is_a_fault(where: str) -> None:
    text = where or "rules:\n - {name: a, convert: enhanced, send_to: [archive]}"

    faults = faults_of(f"codec: {{verify: off}}\n{text}\n")

    assert [line.partition(": ")[2].partition(": ")[2] for line in faults] == [
        "enhanced needs codec.verify: independent"
    ]


def test_a_restore_record_beside_the_object_needs_a_folder() -> None:
    text = (
        "enhanced: {restore_record: sidecar}\n"
        "destinations:\n"
        "  archive: {kind: folder, path: /a}\n"
        "  pacs: {kind: dicom, host: h, port: 104, ae_title: P}\n"
        "rules:\n"
        "  - {name: a, convert: enhanced, send_to: [pacs]}\n"
        "  - {name: b, convert: enhanced, send_to: [pacs, archive]}\n"
        "  - {name: c, convert: htj2k, send_to: [pacs]}\n"
    )

    (fault,) = faults_of(text)

    assert fault.startswith("c.yaml:6:43: rules[0].send_to: restore_record: sidecar needs")
    assert len(config_of(text.replace("sidecar", "embedded")).rules) == 3


def test_text_that_is_not_utf_8_is_a_fault_at_its_place() -> None:
    assert faults_of(b"node:\n  ae_title: \xff") == ["c.yaml:2:13: the file is not UTF-8 text"]


def test_a_character_that_yaml_forbids_is_a_fault_at_its_place() -> None:
    faults = faults_of("node: {}\n#\x01")

    assert faults[0].startswith("c.yaml:2:2: character ")


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse(b"\xef\xbb\xbfnode: {port: 104}", "c.yaml").node.port == 104


def test_a_file_that_is_too_large_is_a_fault() -> None:
    assert faults_of(b"#" * (MAX_BYTES + 1)) == [
        f"c.yaml:1:1: a configuration has {MAX_BYTES} bytes at most"
    ]


def test_a_file_that_is_nested_too_deeply_is_a_fault() -> None:
    assert faults_of("[" * 100_000)[0] == "c.yaml:1:33: not valid YAML: more than 32 levels deep"


def test_aliases_that_multiply_are_a_fault() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )

    assert faults_of(bomb)[0] == (
        "c.yaml:1:1: aliases expand to more than 50000 values or 32 levels"
    )


def test_an_alias_inside_itself_is_a_fault() -> None:
    assert "aliases expand" in faults_of("rules: &a [*a]")[0]


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"

    with pytest.raises(ConfigError) as raised:
        load(missing)

    assert raised.value.faults == [f"{missing}:1:1: cannot be read: No such file or directory"]


WORDS = st.sampled_from(
    [
        *Config.model_fields,
        *("name", "match", "send_to", "kind", "folder", "dicom", "path", "not", "ge", "regex"),
        *("Modality", "archive", "enhanced", "port", "\\", "[", "{", "&a", "*a", "!!x"),
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), WORDS)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(WORDS, TREES, max_size=6))
def test_any_tree_loads_or_has_faults(tree: dict[str, object]) -> None:
    loads_or_has_faults(yaml.safe_dump(tree, allow_unicode=True).encode())


@given(st.binary(max_size=200))
def test_any_bytes_load_or_have_faults(content: bytes) -> None:
    loads_or_has_faults(content)


@given(st.text(alphabet="{}[]:,&*!|>'\"%@`#-? \n\tab0\\x", max_size=60))
def test_any_punctuation_loads_or_has_faults(text: str) -> None:
    loads_or_has_faults(text.encode())


def loads_or_has_faults(content: bytes) -> None:
    faults = None
    try:
        parse(content, "c.yaml")
    except ConfigError as error:
        faults = error.faults

    assert faults is None or (faults and all(fault.startswith("c.yaml:") for fault in faults))


def test_sop_classes_that_a_destination_skips_are_named_or_numbered() -> None:
    text = (
        "destinations:\n"
        "  pacs: {kind: dicom, host: pacs, port: 104, ae_title: PACS, on_refused: skip,\n"
        "         max_associations: 4,\n"
        "         skip_sop_classes: [EncapsulatedPDFStorage, Basic Text SR Storage, 1.2.3]}\n"
        "default: {send_to: [pacs], priority: urgent}\n"
    )

    config = parse(text.encode(), "c.yaml")

    pacs = config.destinations["pacs"]
    assert isinstance(pacs, DicomDestination)
    assert (pacs.on_refused, pacs.max_associations) == ("skip", 4)
    assert pacs.skip_sop_classes == (
        "1.2.840.10008.5.1.4.1.1.104.1",
        "1.2.840.10008.5.1.4.1.1.88.11",
        "1.2.3",
    )
    assert config.default.priority is Priority.URGENT


def test_a_sop_class_that_nobody_knows_is_a_fault_at_its_place() -> None:
    text = (
        "destinations:\n"
        "  archive: {kind: folder, path: ./archive, skip_sop_classes: [CTImageStorag]}\n"
        "default: {send_to: [archive]}\n"
    )

    assert faults_of(text) == [
        "c.yaml:2:63: destinations.archive.skip_sop_classes[0]: 'CTImageStorag' is no SOP class: "
        "did you mean 'CTImageStorage'?"
    ]


@pytest.mark.parametrize("count", ["0", "65", "some"])
def test_receivers_are_counted_or_left_to_the_machine(count: str) -> None:
    assert config_of("{}").node.receivers == "auto"
    assert config_of("node: {receivers: 3}").node.receivers == 3

    assert faults_of(f"node: {{receivers: {count}}}") == [
        f"c.yaml:1:19: node.receivers: must be auto or a number from 1 to 64, not {count!r}"
    ]


@pytest.mark.parametrize(
    ("host", "hint"),
    [("h:104", ": the port has a key of its own"), ("http://h", ""), ("h h", ""), ("10.0.0", "")],
)
def test_who_is_called_is_an_address_or_a_name(host: str, hint: str) -> None:
    text = (
        f"destinations: {{archive: {{kind: dicom, host: '{host}', port: 104, ae_title: PACS}}}}\n"
        f"access: {{peers: [{{ae_title: CT1, report_to: {{host: '{host}', port: 104}}}}]}}\n"
    )

    assert [fault.partition(": ")[2] for fault in faults_of(text)] == [
        f"destinations.archive.host: {host!r} is no IP address or host name{hint}",
        f"access.peers[0].report_to.host: {host!r} is no IP address or host name{hint}",
    ]


@pytest.mark.parametrize("host", ["pacs", "pacs_1.example.", "10.0.0.9", "fe80::1", "::1"])
def test_every_way_to_name_a_host_is_taken(host: str) -> None:
    section = f"{{kind: dicom, host: '{host}', port: 104, ae_title: PACS}}"

    found = config_of(f"destinations: {{archive: {section}}}").destinations["archive"]

    assert isinstance(found, DicomDestination)
    assert found.host == host


def test_what_a_peer_is_to_get_is_said_in_words_names_and_uids() -> None:
    text = (
        "destinations:\n"
        "  pacs:\n"
        "    kind: dicom\n"
        "    host: pacs\n"
        "    port: 104\n"
        "    ae_title: PACS\n"
        "    calling_ae_title: sender\n"
        "    accepts: [htj2k, original, native, JPEGLSLossless, 1.2.840.10008.1.2.4.70]\n"
        "    accepts_collapsed: true\n"
        "    max_pdu: 64KiB\n"
        "    tls: {ca: ./ca.pem, check_host: false}\n"
        "default: {send_to: [pacs]}\n"
    )

    pacs = parse(text.encode(), "c.yaml").destinations["pacs"]

    assert isinstance(pacs, DicomDestination)
    assert pacs.accepts == (
        "htj2k",
        "original",
        "native",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.70",
    )
    assert pacs.calls_as_sender
    assert (pacs.accepts_collapsed, pacs.max_pdu) == (True, 65536)
    assert pacs.tls == RequestorTls(ca=Path("./ca.pem"), check_host=False)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("accepts: []", "destinations.pacs.accepts: "),
        ("accepts: [htj2]", "'htj2' is no transfer syntax"),
        ("max_associations: 0", "destinations.pacs.max_associations: "),
        ("max_pdu: 100", "destinations.pacs.max_pdu: "),
        ("tls: {key: ./key.pem}", "a key needs its certificate"),
        ("tls: {ca: ./a.pem, verify: false}", "unknown key 'verify' in destinations.pacs.tls"),
    ],
)
def test_what_cannot_be_meant_of_a_peer_is_a_fault(keys: str, fault: str) -> None:
    peer = f"{{kind: dicom, host: pacs, port: 104, ae_title: PACS, {keys}}}"

    (found,) = faults_of(f"destinations: {{pacs: {peer}}}\ndefault: {{send_to: [pacs]}}\n")

    assert fault in found
