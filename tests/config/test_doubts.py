"""What is allowed and hardly meant is said with its place."""

from pathlib import Path

import pytest

from scp.config.load import doubts

PEERS = """\
node: {ae_title: DCMPRESS}
access:
  anyone: %s
  peers:
    - {ae_title: CT1, address: 10.0.0.0/24}
    - {address: 10.0.1.7%s}
"""


@pytest.mark.parametrize(
    ("anyone", "option", "is_said"),
    [
        ("true", "", True),
        ("false", "", False),
        ("true", ", max_associations: 3", False),
        ("true", ", called_ae_titles: [RESEARCH]", False),
    ],
)
def test_peers_that_keep_nobody_out_are_said(
    tmp_path: Path, anyone: str, option: str, is_said: bool
) -> None:
    file = tmp_path / "dcmpress.yaml"
    file.write_text(PEERS % (anyone, option))

    found = doubts(file)

    assert [each.split(" keeps")[0] for each in found] == (
        [f"{file}:4:3: warning: access.peers:"] if is_said else []
    )


def test_a_configuration_without_peers_has_nothing_to_doubt(tmp_path: Path) -> None:
    file = tmp_path / "dcmpress.yaml"
    file.write_text("access: {anyone: true}\n")

    assert doubts(file) == []
