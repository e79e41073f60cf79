"""How a command finds its node, and what it says where it may not."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from scp.buffer.layout import Layout, lock_data
from scp.config.schema import Config
from scp.durable import Disk
from scp.errors import NodeError
from scp.pipeline import offline  # noqa: F401 - while we are nobody, it might not be readable
from scp.pipeline.client import ask_node
from scp.pipeline.control import ControlServer
from tests.pipeline.parts import config_for

_NOBODY = 65534


@pytest.fixture
def config() -> Iterator[Config]:
    """Of a data folder that another user's node has used; we are nobody, where we may be."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        config = config_for(folder)
        layout = Layout(config.node.data)
        layout.make(Disk())
        os.close(lock_data(layout, 0.0))
        if os.geteuid() != 0:
            pytest.skip("only root may become another user")
        yield config


@pytest.fixture
def nobody(config: Config) -> Iterator[Path]:
    """Its data folder, which nobody may enter, while we are nobody."""
    data = config.node.data
    for folder in (data.parent, data):
        folder.chmod(0o755)
    os.seteuid(_NOBODY)
    yield data
    os.seteuid(0)


@pytest.mark.parametrize("command", ["status", "held", "retry", "discard"])
def test_a_folder_of_another_user_is_said_to_be_one(
    config: Config, nobody: Path, command: str
) -> None:
    with pytest.raises(NodeError) as raised:
        ask_node(config, {"command": command, "job": "a", "reason": "b"})

    assert str(raised.value) == (
        f"{nobody / 'lock'} may not be used by this user; "
        "run the command as the user that runs the node"
    )


def test_a_folder_that_may_not_be_entered_is_said_to_be_one(config: Config, nobody: Path) -> None:
    os.seteuid(0)
    nobody.parent.chmod(0o700)
    os.seteuid(_NOBODY)

    with pytest.raises(NodeError, match=r"data may not be used by this user"):
        ask_node(config, {"command": "status"})


def test_a_node_of_another_user_is_said_to_be_one(config: Config) -> None:
    control = Layout(config.node.data).control
    server = ControlServer(control, lambda request: request)
    for folder in (control.parent.parent, control.parent):
        folder.chmod(0o755)
    os.seteuid(_NOBODY)
    try:
        with pytest.raises(NodeError) as raised:
            ask_node(config, {"command": "status"})
    finally:
        os.seteuid(0)
        server.stop()

    assert str(raised.value) == (
        f"the node cannot be asked on {control}: only the user that runs it may; "
        "run the command as that user"
    )
