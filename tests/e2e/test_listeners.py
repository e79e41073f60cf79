"""A node with a plain and a TLS port, as an administrator sets it up, looks at it and breaks it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.certificates import Authority
from tests.e2e.conftest import StartNode
from tests.e2e.node import RunningNode, Tree, command
from tests.material import ct_series, write_all


def listeners(authority: Authority) -> list[Tree]:
    certificate, key = authority.issue("node.example")
    pair = {
        "certificate": str(certificate),
        "key": str(key),
        "ca": str(authority.file),
        "client_certificate": "required",
    }
    near = {"bind": "127.0.0.1", "port": 0}
    return [{**near, "ae_titles": ["PLAIN"]}, {**near, "tls": pair}]


def test_a_node_serves_a_plain_and_a_tls_port(
    node: StartNode, dcmtk: Callable[[str], str], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    running = node({"listeners": listeners(authority)})
    plain, secure = running.status()["listeners"]
    certificate, key = authority.issue("ct1.example")
    paths = write_all(ct_series(4, 64, 64, seed=811), tmp_path / "ct")

    address = ("127.0.0.1", str(secure["port"]))
    running.send(paths[:2], ae_title="PLAIN")
    subprocess.run(
        [dcmtk("storescu"), "+tls", key, certificate, "+cf", authority.file, *address, *paths[2:]],
        check=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    running.wait_for(received=4, delivered=4)

    assert plain["ae_titles"] == ["PLAIN"]
    assert (plain["tls"], secure["tls"]) == (False, True)
    assert f"port {plain['port']}\n" in running.log()
    assert f"port {secure['port']}, TLS\n" in running.log()


def test_check_doctor_and_serve_say_what_is_wrong_with_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    sections = listeners(authority)
    pair = sections[1]["tls"]
    node = RunningNode(tmp_path / "node", {"listeners": sections})
    good = command("check", str(node.config_file))
    expired, its_key = authority.issue(days=-1)

    Path(pair["certificate"]).write_bytes(expired.read_bytes())
    mismatch = command("check", str(node.config_file))
    served = command("serve", "-c", str(node.config_file))
    Path(pair["key"]).write_bytes(its_key.read_bytes())
    too_late = command("check", str(node.config_file))
    examined = command("doctor", "-c", str(node.config_file))

    assert good.returncode == 0, good.stderr
    assert mismatch.returncode == 2
    place, _, message = mismatch.stderr.strip().partition(": ")
    assert message == f"listeners[1].tls.key: {pair['key']} is not the key of {pair['certificate']}"
    _, line, column = place.rsplit(":", 2)
    written = node.config_file.read_text().splitlines()[int(line) - 1]
    assert written[int(column) - 1 :] == pair["key"]
    assert served.returncode == 1
    assert f"{pair['key']} is not the key of {pair['certificate']}" in served.stderr
    assert too_late.returncode == 2
    assert f"{pair['certificate']} has expired: renew it" in too_late.stderr
    assert examined.returncode == 1
    assert "port 0" in examined.stderr
    assert "has expired" in examined.stdout
