"""`fit` where there is no terminal: in a notebook, under a redirected or a missing output."""

import io
import sys

import pytest
from td_reference import K4

from keras_dqn import SoftTargetUpdate


class Notebook(io.StringIO):
    """A stream without a file descriptor, as Jupyter's is."""

    def fileno(self):
        raise io.UnsupportedOperation("fileno")

    def isatty(self):
        return False


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_output_goes_to_any_stream(make_agent, make_batches, as_dataset, monkeypatch, verbose):
    stream = Notebook()
    monkeypatch.setattr(sys, "stdout", stream)
    agent = make_agent(**K4)
    agent.fit(
        as_dataset(make_batches(8)), epochs=2, verbose=verbose, callbacks=[SoftTargetUpdate()]
    )
    agent.evaluate(as_dataset(make_batches(8)), verbose=verbose)
    printed = stream.getvalue()
    if verbose == 0:
        assert printed == ""
    else:
        for text in ("Epoch 2/2", "8/8", "loss: ", "q_value: ", "abs_td_error: "):
            assert text in printed
    assert int(agent.update_count) == 16
