"""Clones and inspects Keras networks."""
