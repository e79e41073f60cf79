"""A node that tells: held instances, a destination that is down, low space; once, and over a restart."""

from pathlib import Path

from tests.deliver.peers import HandPeer
from tests.e2e.conftest import StartNode
from tests.e2e.node import Tree, until
from tests.e2e.peers import free_port
from tests.material import ct_series, write_all
from tests.pipeline.hook import Hook

PATIENT = "Phantom"


def pacs(port: int) -> Tree:
    return {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "PACS"}


def test_a_person_is_told_once_what_needs_one_and_when_it_is_over(
    node: StartNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(2, 32, 32, seed=711), tmp_path / "ct")
    with Hook() as hook, HandPeer(answer=lambda number: 0xA900) as refusing:
        running = node(
            {
                "notices": {
                    "webhook": hook.url,
                    "down_minutes": 0.001,
                    "low_space": "1000TiB",
                },
                "destinations": {"refusing": pacs(refusing.port), "down": pacs(free_port())},
                "default": {"send_to": ["refusing", "down"]},
            }
        )
        running.send(paths)
        raised = {("held", "refusing"), ("destination_down", "down"), ("low_space", "")}

        until(
            lambda: {(kind, subject) for kind, subject, _ in hook.notices()} >= raised,
            lambda: f"{hook.notices()}\n{running.log()}",
        )
        assert running.terminate() == 0
        before = len(hook.posted)
        running.start()
        (job,) = {each["job"] for each in running.held()}
        refusing.answer = lambda number: 0x0000
        running.command("retry", job)
        until(
            lambda: ("held", "refusing", "resolved") in hook.notices(),
            lambda: f"{hook.notices()}\n{running.log()}",
        )
        after = hook.notices()[before:]

    assert len(hook.notices()) == len(set(hook.notices()))
    assert "raised" not in {state for _, _, state in after}
    (held,) = [n for n in hook.posted if n["notice"] == "held" and n["state"] == "raised"]
    assert held["facts"] == {"instances": 2, "jobs": 1, "reasons": {"the peer answers A900": 2}}
    assert PATIENT not in str(hook.posted)
    assert all(path.stem not in str(hook.posted) for path in paths)
