"""`python -m dtap_dask` is `dtap-dask`."""

from dtap_dask.cli import main

main()
