"""Ways to a Dask cluster."""
