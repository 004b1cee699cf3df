"""Reading of finished datasets for training: the order of epochs, positions in them, and batches of NumPy arrays."""
