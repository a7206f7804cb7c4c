"""`Cluster`: joins Ray, and looks whether it is still there."""

import logging
import os
import socket
import time
from typing import Any

INSTALL_COMMAND = "python -m pip install ray ai-edge-litert"
_CHECK_EVERY = 5.0  # seconds between two looks
_PART = 2**16  # bytes; Ray puts an argument of more than 100 KB into its store
_MOST_SENT = 2**22  # bytes
_HEAD_TIMEOUT = 20.0  # seconds; after 60 Ray ends the process

try:
    import ray
except ImportError as error:
    raise ImportError(
        f"`keras_dqn.integrations.ray` needs Ray: {INSTALL_COMMAND}. Received: {error}"
    ) from error


class Cluster:
    """Joins the cluster of `RAY_ADDRESS`, or starts Ray on this machine, unless that was done.

    It looks for lost nodes itself, because Ray ends this process without an error of Python: 60
    seconds after the head node was lost, and in `ray.put` if Ray has ended on this machine.
    """

    def __init__(self) -> None:
        if not ray.is_initialized():
            # Without an address, Ray would also look for what an earlier program has left behind.
            address = None if os.environ.get("RAY_ADDRESS") else "local"
            ray.init(
                address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        self.is_lost = False
        context = ray.get_runtime_context()
        self._id = context.get_node_id()
        (node,) = [node for node in ray.nodes() if node["NodeID"] == self._id]
        host, port = context.gcs_address.rsplit(":", 1)
        self._head = (host, int(port))
        self._node = (node["NodeManagerAddress"], int(node["NodeManagerPort"]))
        self._checked_at = self._answered_at = time.monotonic()

    def check(self, at_once: bool = False) -> None:
        """Looks every 5 seconds whether the cluster is there.

        Raises:
            RuntimeError: If Ray has ended on this machine, or the head node has not answered for 20
                seconds.
        """
        now = time.monotonic()
        if now - self._checked_at < _CHECK_EVERY and not at_once:
            return
        self._checked_at = now
        self._check_own_node()
        try:
            _connect(self._head)
        except OSError as error:
            if now - self._answered_at > _HEAD_TIMEOUT:
                self._lost("the head node of Ray does not answer", error)
        else:
            self._answered_at = now

    def parts_of(self, value: Any) -> list[Any]:
        """Returns a pickled value as arguments for a call of a worker, which joins them.

        A small value goes with the call itself. A large one is put into Ray's store, once for all
        workers.
        """
        pickled = ray.cloudpickle.dumps(value)
        if len(pickled) > _MOST_SENT:
            self._check_own_node()
            return [ray.put(pickled)]
        return [pickled[i : i + _PART] for i in range(0, len(pickled), _PART)]

    def _check_own_node(self) -> None:
        try:
            _connect(self._node)
        except OSError as error:
            self._lost("Ray has ended on this machine", error)

    def _lost(self, what: str, error: OSError) -> None:
        self.is_lost = True
        if ray.is_initialized() and ray.get_runtime_context().get_node_id() == self._id:
            ray.shutdown()
        raise RuntimeError(
            f"The workers are lost: {what}. Agent and buffer are as after the last execution; a "
            "new process can go on from a `TrainingCheckpoint`. "
            f"Received: address={self._head[0]}:{self._head[1]}, {error}"
        ) from error


def _connect(address: tuple[str, int]) -> None:
    socket.create_connection(address, timeout=_CHECK_EVERY).close()
