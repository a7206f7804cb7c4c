"""The protocol of objects whose state must survive a restart."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """Gives its state and takes it back: `b.set_state(a.get_state())` makes `b` continue like `a`.

    A state is a dict of plain JSON values (NaN included), NumPy arrays, and lists and dicts of
    them. It shares no memory with the object that gave it.
    """

    def get_state(self) -> dict[str, Any]:
        """Returns the state."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes a state of an object that was made with the same arguments."""
