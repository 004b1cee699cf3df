"""Finished datasets as datasets of PyTorch, which is imported only where one is made."""
