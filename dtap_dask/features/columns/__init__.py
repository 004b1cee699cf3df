"""Columns of a batch, and what is done with their values."""
