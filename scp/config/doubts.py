"""What a configuration says that is allowed and hardly meant: no fault, but a person should look."""

from collections.abc import Iterator

from scp.config.schema import Config, Peer
from scp.config.yaml_tree import Fault, Tree

_WHO = frozenset(("ae_title", "address", "certificate_name"))


def doubts_of(config: Config, tree: Tree) -> Iterator[Fault]:
    """Each with its place."""
    peers = config.access.peers
    if config.access.anyone and peers and not any(map(_is_special, peers)):
        yield Fault(
            *tree.place(("access", "peers"), of_key=True),
            "access.peers: keeps nobody out while anyone is true, and says nothing else of them; "
            "say anyone: false to accept only these",
        )


def _is_special(peer: Peer) -> bool:
    """Whether anything holds for it that does not hold for others."""
    return not peer.model_fields_set <= _WHO
