"""Writes the checkpoints of a run to a directory and reads them, without Keras."""
