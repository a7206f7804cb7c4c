"""Q-learning agents as `keras.Model`s."""
