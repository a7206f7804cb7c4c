"""Keras networks: what an agent asks of them."""
