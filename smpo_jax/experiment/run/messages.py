"""What processes that train together say to each other.

Whatever runs on devices of several processes has to be begun by all of them, in the same order:
process 0 says what comes next (`tell`), the others do that (`receive`, and `followers`).
"""

import contextlib
import enum
import json
import math
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from smpo_jax.experiment.errors import one_line
from smpo_jax.types import TrainState

PIECE = 1 << 28  # bytes in a message, at most


class LostError(Exception):
    """Another process is gone, or cannot be reached any more."""


class Order(enum.IntEnum):
    """What comes next."""

    BUILD = 1  # the problem of a config that is sent
    INIT = 2  # the state before the first iteration
    GO_ON = 3  # from a state that is sent
    COMPILE = 4
    ITERATE = 5  # as often as the argument says
    WHOLE = 6  # the state of all processes, for a checkpoint
    END = 7  # with the argument as exit status


class Told(NamedTuple):
    """What process 0 has said.

    Attributes:
        order: what comes next.
        argument: a number that belongs to it.
    """

    order: Order
    argument: int


def tell(order: Order, argument: int = 0) -> None:
    """Has the other processes do something; process 0 then does the same.

    A signal that one of them was sent is passed on to this process, unless it had one already.

    Raises:
        LostError: one is lost.
    """
    rows = _exchange([order, argument, 0])
    for number in map(int, rows[1:, 2]):
        if number and callable(signal.getsignal(number)):
            signal.raise_signal(number)


def receive(signal_received: int = 0) -> Told:
    """Waits for what process 0 tells.

    Args:
        signal_received: the number of a signal by which this process was asked to stop, or 0.

    Raises:
        LostError: a process is lost.
    """
    order, argument, _ = map(int, _exchange([0, 0, signal_received])[0])
    return Told(Order(order), argument)


def send(data: bytes | None) -> bytes:
    """What process 0 gives, on all of them; the others give None."""
    high, low = divmod(len(data or b""), PIECE)  # beyond what an int32 can count
    high, low, _ = map(int, _exchange([high, low, 0])[0])
    size = high * PIECE + low
    own = np.frombuffer(data or bytes(size), np.uint8)
    with lost_told():
        pieces = [
            np.asarray(multihost_utils.broadcast_one_to_all(own[start : start + PIECE]))
            for start in range(0, size, PIECE)
        ]
    return b"".join(piece.astype(np.uint8).tobytes() for piece in pieces)


def gather(text: str) -> list[str]:
    """What each process gives, on all of them."""
    data = text.encode()
    sizes = _exchange([0, len(data), 0])[:, 1]
    own = np.frombuffer(data.ljust(int(sizes.max()) + 1), np.uint8)
    with lost_told():
        rows = np.asarray(multihost_utils.process_allgather(own), np.uint8)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def send_saved(state: TrainState | None, like: TrainState) -> TrainState:
    """The state that process 0 has from a checkpoint, on all of them.

    Only process 0 has to see the checkpoint. Bytes are sent, so that no number changes: sums, as
    which they are sent, would make 0 of -0. Leaves that all have on their devices stay as they are.

    Args:
        state: on process 0 that state; on the others the one that they have, or None.
        like: its shapes.
    """
    shapes, structure = jax.tree.flatten(like)
    leaves = list(shapes if state is None else jax.tree.leaves(state))
    if jax.process_index() == 0:
        own = {i: _data(leaf) for i, leaf in enumerate(leaves) if _is_here(leaf)}
        saved = json.loads(send(json.dumps(list(own)).encode()))
        data = send(b"".join(np.asarray(each).tobytes() for each in own.values()))
    else:
        saved, data = json.loads(send(None)), send(None)
    start = 0
    for i in saved:
        shape = jax.eval_shape(_data, shapes[i])
        size = math.prod(shape.shape) * shape.dtype.itemsize
        array = np.frombuffer(data[start : start + size], shape.dtype).reshape(shape.shape)
        leaves[i] = jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(shapes[i]) else array
        start += size
    return jax.tree.unflatten(structure, leaves)


def whole_state(state: TrainState, mesh: Mesh) -> TrainState:
    """The state of all processes, on each of them."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    with lost_told():
        state = jax.jit(_same, out_shardings=everywhere)(state)
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), state)


@contextlib.contextmanager
def lost_told() -> Iterator[None]:
    """Makes a `LostError` of what JAX raises where a process does not answer any more."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = one_line(error)
        if "RESOURCE_EXHAUSTED" in text:  # memory
            raise
        if not isinstance(error, jax.errors.JaxRuntimeError) and "Gloo" not in text:
            raise
        raise LostError(text if len(text) < 200 else f"{text[:60]} ... {text[-120:]}") from error


def _exchange(row: list[int]) -> np.ndarray:
    with lost_told():
        return np.asarray(multihost_utils.process_allgather(np.asarray(row, np.int32)))


def _same(state: TrainState) -> TrainState:  # one function, so that it is compiled once
    return state


def _is_here(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
