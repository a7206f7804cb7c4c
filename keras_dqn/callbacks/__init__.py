"""Keras callbacks for deep Q-learning. They use only public methods of models and buffers."""
