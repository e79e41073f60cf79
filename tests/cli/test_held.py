"""dcmpress held, retry and discard say what they did, with a node and without one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scp.pipeline.control import ControlServer
from scp.pipeline.requests import Requests
from tests.cli.conftest import Dcmpress
from tests.pipeline.parts import Parts, config_for

type Node = Callable[[], Parts]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of the node that :func:`node` makes; ``archive`` cannot be written to."""
    (tmp_path / "archive").touch()
    file = tmp_path / "dcmpress.yaml"
    file.write_text(
        f"node: {{data: {tmp_path / 'data'}}}\n"
        f"destinations: {{archive: {{kind: folder, path: {tmp_path / 'archive'}}}}}\n"
        "default: {send_to: [archive]}\n"
    )
    return file


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with what is in its folders; it answers until the test ends, or until it is closed."""
    with ExitStack() as ends:

        def start() -> Parts:
            parts = Parts(config_for(tmp_path))
            ends.callback(parts.close)
            requests = Requests(
                parts.config, parts.accounts, parts.dispatch, parts.originals, lambda: 0, dict
            )
            control = ControlServer(parts.layout.control, requests.handle)
            ends.callback(control.stop)
            return parts

        yield start


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Parts]:
    """Folders of a node that is down."""
    parts = Parts(config_for(tmp_path))
    yield parts
    parts.close()


def damage(parts: Parts, job: str) -> Path:
    """A job that is held because its commit cannot be read; its folder."""
    parts.job(job)
    (parts.folders.folder(job) / "job.json").write_text("{")
    parts.dispatch.recover_jobs()
    return parts.folders.held_folder(job)


def to_mend(job: str, folder: Path) -> str:
    return (
        f"dcmpress: job {job} is still held, because {folder}/job.json cannot be read: mend that "
        "and say dcmpress retry, or take the folder away while the node is down\n"
    )


# -- with a node -----------------------------------------------------------------------------------


def test_what_still_cannot_be_read_was_not_tried(
    node: Node, dcmpress: Dcmpress, config: Path
) -> None:
    parts = node()
    folder = damage(parts, "broken")

    said = dcmpress("retry", "broken", "-c", config, code=1)

    assert said == "0 jobs are tried again\n" + to_mend("broken", folder)


def test_all_is_tried_but_what_cannot_be_read(node: Node, dcmpress: Dcmpress, config: Path) -> None:
    parts = node()
    broken, other = damage(parts, "broken"), damage(parts, "other")
    parts.held(parts.job("good", send_to=("left",)))

    said = dcmpress("retry", "--all", "-c", config, code=1)

    assert said == (
        "1 jobs are tried again\n" + to_mend("broken", broken) + to_mend("other", other)
    )


def test_what_was_mended_is_tried_again(node: Node, dcmpress: Dcmpress, config: Path) -> None:
    parts = node()
    parts.job("mended")
    commit = parts.folders.folder("mended") / "job.json"
    good = commit.read_bytes()
    commit.write_text("{")
    parts.dispatch.recover_jobs()
    (parts.folders.held_folder("mended") / "job.json").write_bytes(good)

    assert dcmpress("retry", "mended", "-c", config) == "1 jobs are tried again\n"


def test_what_cannot_be_read_is_not_discarded_but_mended(
    node: Node, dcmpress: Dcmpress, config: Path
) -> None:
    parts = node()
    folder = damage(parts, "broken")

    said = dcmpress("discard", "broken", "--reason", "x", "-c", config, code=1)

    assert said == to_mend("broken", folder)
    assert folder.is_dir()


def test_a_job_that_one_destination_holds_while_another_works_is_not_discarded_yet(
    node: Node, dcmpress: Dcmpress, config: Path
) -> None:
    parts = node()
    parts.start(parts.job("half", send_to=("archive", "left")))
    assert "destination_left_configuration" in dcmpress("held", "-c", config)

    said = dcmpress("discard", "half", "--reason", "x", "-c", config, code=1)

    assert said.startswith("dcmpress: job half cannot be discarded yet: left holds its share, and")
    assert said.count("\n") == 1
    assert "half" in parts.dispatch.live


def test_what_is_not_held_at_all_is_said_to_be_so(
    node: Node, dcmpress: Dcmpress, config: Path
) -> None:
    node()

    said = dcmpress("discard", "none", "--reason", "x", "-c", config, code=1)

    assert said == "dcmpress: no job none is held; see dcmpress held\n"


# -- without one -----------------------------------------------------------------------------------


def test_without_a_node_retry_releases_what_is_held_and_says_that_it_waits(
    folders: Parts, dcmpress: Dcmpress, config: Path
) -> None:
    folders.held(folders.job("held", send_to=("left",)))
    folders.job("waiting")
    broken = damage(folders, "broken")
    folders.close()

    said = dcmpress("retry", "--all", "-c", config, code=1)

    assert said.startswith(
        "1 jobs are released, and delivered when the node starts\n"
        "1 jobs wait for the node to start, as before\n"
    )
    assert said.endswith(to_mend("broken", broken))
    assert folders.folders.jobs() == ["held", "waiting"]


def test_without_a_node_what_cannot_be_read_is_not_discarded_but_mended(
    folders: Parts, dcmpress: Dcmpress, config: Path
) -> None:
    broken = damage(folders, "broken")
    folders.close()

    said = dcmpress("discard", "broken", "--reason", "x", "-c", config, code=1)

    assert said.endswith(to_mend("broken", broken))


def test_without_a_node_a_held_job_is_discarded(
    folders: Parts, dcmpress: Dcmpress, config: Path
) -> None:
    folders.held(folders.job("held", count=2, send_to=("left",)))
    folders.close()

    said = dcmpress("discard", "held", "--reason", "x", "-c", config)

    assert said == "held: 2 instances discarded\n"
    assert dcmpress("held", "-c", config) == "nothing is held\n"
    assert list(folders.layout.trash.iterdir()) == []
