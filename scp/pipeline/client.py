"""How a command speaks to its node, running or not."""

import time

from scp.buffer.layout import Layout, is_locked
from scp.config.schema import Config
from scp.errors import NodeError
from scp.pipeline.control import Reply, Request, ask

_ANSWER_SECONDS = 20.0
_LOCK_SECONDS = 2.0


def ask_node(config: Config, request: Request) -> Reply:
    """Ask the running node; without one, work on its folders under the lock.

    Raises
    ------
    NodeError
        It cannot be done, or there is no such folder.
    """
    try:
        return _ask_node(config, Layout(config.node.data), request)
    except PermissionError as error:
        where = error.filename or config.node.data
        raise NodeError(
            f"{where} may not be used by this user; run the command as the user that runs the node"
        ) from error


def _ask_node(config: Config, layout: Layout, request: Request) -> Reply:
    if not layout.data.is_dir():
        raise NodeError(f"no node has run on {layout.data} yet; start one with dcmpress serve")
    answer = ask(layout.control, request, _ANSWER_SECONDS)
    if answer is not None:
        return answer
    if is_locked(layout):
        # It holds the folder and does not answer: it starts, stops, or is being replaced.
        time.sleep(_LOCK_SECONDS)
        answer = ask(layout.control, request, _ANSWER_SECONDS)
        if answer is not None:
            return answer
    # Here, because it imports the ledger, which takes longer than a running node to answer.
    from scp.pipeline.offline import answer_offline

    return answer_offline(config, layout, request)
