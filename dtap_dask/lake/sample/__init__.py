"""A made-up lake of taxi trips to try things on, written by `dtap-dask sample`. Open `sample_lake.py` first."""
