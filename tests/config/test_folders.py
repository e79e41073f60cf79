"""Folders that would spoil each other, or cannot be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scp.buffer.layout import Layout
from scp.config.folders import SPOOL
from scp.config.load import load, parse
from scp.config.schema import FolderDestination
from scp.errors import ConfigError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a node in the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text.encode(), "c.yaml")
    return raised.value.faults


def delivering_to(path: str) -> str:
    return f"destinations:\n  archive: {{kind: folder, path: '{path}'}}\n"


def test_the_spool_is_where_the_node_has_it(data: Path) -> None:
    assert Layout(data).spool == data / SPOOL


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("data/spool", "lies in"),
        ("data/spool/jobs/x", "lies in"),
        ("data/archive/../spool/archive", "lies in"),
        ("linked", "lies in"),
        ("linked/archive", "lies in"),
        ("data", "contains"),
        ("./data/.", "contains"),
        (".", "contains"),
        ("/", "contains"),
    ],
)
def test_a_destination_may_have_nothing_of_the_spool(data: Path, path: str, how: str) -> None:
    (data / "spool").mkdir(parents=True)
    Path("linked").symlink_to("data/spool")

    (fault,) = faults_of(delivering_to(path))

    resolved = Path(path).resolve()
    assert fault == (
        f"c.yaml:2:33: destinations.archive.path: {resolved} {how} the node's own folder "
        f"{data / 'spool'}: name another"
    )


@pytest.mark.parametrize("path", ["elsewhere", "elsewhere/archive", "data", "data/spool"])
def test_a_spool_that_is_a_link_is_the_nodes_on_both_its_ends(data: Path, path: str) -> None:
    data.mkdir()
    Path("elsewhere").mkdir()
    (data / "spool").symlink_to("../elsewhere")

    (fault,) = faults_of(delivering_to(path))

    assert "the node's own folder" in fault


@pytest.mark.parametrize(
    "path", ["data/archive", "data/spool2", "archive", "../spool", "data/spool/../archive"]
)
def test_what_lies_beside_the_spool_is_a_good_destination(data: Path, path: str) -> None:
    config = parse(delivering_to(path).encode(), "c.yaml")

    assert config.destinations == {"archive": FolderDestination(kind="folder", path=Path(path))}


def test_another_data_folder_has_another_spool(data: Path) -> None:
    text = delivering_to("elsewhere/spool/archive")

    parse(text.encode(), "c.yaml")

    assert "c.yaml:2:33: " in faults_of(text + "node: {data: elsewhere}")[0]


def test_the_built_in_destination_that_leads_into_the_spool_is_a_fault_too(data: Path) -> None:
    (data / "spool").mkdir(parents=True)
    (data / "archive").symlink_to("spool")

    (fault,) = faults_of("node: {ae_title: A,\n  data: ./data}")
    with pytest.raises(
        ConfigError, match=r"^the built-in configuration:1:1: destinations\.archive"
    ):
        load(None)

    assert fault.startswith("c.yaml:2:9: destinations.archive.path: ")


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("file", "{} is no folder: name another"),
        ("linked", "{} is no folder: name another"),
        ("file/data", "{0} is no folder, and {0}/data would lie below it: name another"),
    ],
)
def test_a_data_folder_that_is_a_file_is_a_fault(data: Path, named: str, why: str) -> None:
    file = data.parent / "file"
    file.touch()
    Path("linked").symlink_to("file")

    (fault,) = faults_of(f"node: {{data: {named}}}")

    assert fault == f"c.yaml:1:14: node.data: {why.format(file)}"


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["is there", "not yet"])
def test_a_data_folder_may_be_there_or_not(data: Path, make: Callable[[Path], None]) -> None:
    make(data)

    assert parse(b"node: {data: ./data}", "c.yaml").node.data == Path("data")
    assert parse(b"node: {data: ./data/ward/1}", "c.yaml").node.data == Path("data/ward/1")


def test_who_asks_for_no_data_folder_may_have_a_file_of_its_name(data: Path) -> None:
    data.touch()

    assert load(None).node.data == Path("data")


def test_checking_makes_nothing(data: Path) -> None:
    parse(b"node: {data: ./data}", "c.yaml")

    assert list(data.parent.iterdir()) == []
