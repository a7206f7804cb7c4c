"""Experience replay on the host: NumPy rings, and a `tf.data.Dataset` that draws from them."""
