"""An object store that cannot be used says why; what it does with objects is in test_contract.py."""

from pathlib import Path

import pytest

from scp.deliver.object_store import ObjectStoreWriter
from scp.errors import PeerUnavailableError
from tests.deliver.places import s3_section


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    section = s3_section("https://127.0.0.1:1", ca=tmp_path / "none.pem")

    with pytest.raises(PeerUnavailableError, match=r"cannot be used: .*none\.pem: No such file"):
        ObjectStoreWriter("s3", section).check()
