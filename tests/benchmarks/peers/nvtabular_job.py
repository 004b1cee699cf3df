"""The whole job with NVTabular, if it can be imported: nvtabular_job.py LAKE OUT WARM_UP_LAKE

Its last release, 23.8, needs pandas before 2 and brings a Dask that needs pandas 2. The job is still to be written for
a release that works; what this prints until then is the reason.
"""

import nvtabular

raise SystemExit(f"ImportError no more: nvtabular {nvtabular.__version__} can be used, so write its job here")
