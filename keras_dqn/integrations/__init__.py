"""Connects keras_dqn to other libraries; each library is imported only when it is used."""
