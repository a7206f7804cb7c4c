"""Runs K training steps of a Keras model in one compiled program."""
