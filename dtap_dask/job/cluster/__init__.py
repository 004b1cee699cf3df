"""Dask clients and clusters: options, security, starting workers."""
