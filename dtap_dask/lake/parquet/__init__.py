"""Reads Parquet files: footers with their statistics, and row groups decoded into Arrow record batches.

`footers.py` reads what a file holds, `row_groups.py` streams its rows within a fixed memory. pyarrow does the decoding;
what stands around it keeps a damaged or encrypted file from ending the process, and reads no byte that is not needed.
"""
