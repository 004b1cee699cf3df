"""The graph of values: built from a job, saved and loaded with its fitted numbers."""
