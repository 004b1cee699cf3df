"""The fitted features of a dataset applied to rows at hand, in Python alone: neither Dask nor TensorFlow is needed."""
