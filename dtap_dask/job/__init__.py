"""A job, from its file to a finished dataset. Each of these imports only from those above it:

taps        storage settings, with defaults from Dask's configuration
console     the standard streams of a command
interrupts  Ctrl-C and signals
table       rows as text or JSON
jobfile     a job file: read, checked, with its mistakes by line
ending      the end of a command's process
cluster     a Dask client: local processes, a scheduler's address or a cluster file
dataset     a finished dataset, shown and verified
init        a starter job file for a lake
planning    what a job will read, fit and write, and what that will take
status      how a run goes: kept, shown, and read from elsewhere
execution   what runs on workers, and what sends it there
dashboard   a page and metrics in Dask's dashboard
estimators  fitting with dask-ml, and fitted steps as its estimators
preview     a few rows as the records will hold them
samples     a few rows as they are in the lake
read, read_records  the filtered source as a Dask DataFrame, and records as one or as an Arrow table
running     a run from its plan to its manifest, submitted or here
"""
