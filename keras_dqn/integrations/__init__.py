"""Other libraries beside keras_dqn; each is imported only when something of it is used."""
