"""Keras callbacks for deep Q-learning, which work through models' and buffers' public methods."""
