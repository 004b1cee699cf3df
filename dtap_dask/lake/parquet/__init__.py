"""Reads Parquet files: footers with their statistics, and row groups decoded into Arrow record batches.

`footers.py` reads what a file holds, `reading.py` streams its rows within a fixed memory. pyarrow decodes; the
code around it keeps damaged or encrypted files from aborting the process, and reads no byte that is not needed.
"""
