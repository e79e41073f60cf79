"""The queues of a configuration, with what they have in common."""

from scp.ledger.ports import State
from tests.deliver.web_peer import WebPeer
from tests.pipeline.conftest import MakeParts


def test_what_a_web_server_refused_is_sent_again_when_a_person_asks_for_it(
    make_parts: MakeParts,
) -> None:
    with WebPeer(refuses=lambda syntax: True) as peer:
        web = {"kind": "dicomweb", "url": peer.url}
        parts = make_parts(destinations={"web": web}, default={"send_to": ["web"]})
        parts.held(parts.job(send_to=("web",)))
        assert parts.layout.refused_by("web").exists()
        peer.refuses = lambda syntax: False

        parts.dispatch.retry(["job-1"])

        parts.until(lambda: parts.states() == {State.DELIVERED: 1})
        assert len(peer.stored) == 1
