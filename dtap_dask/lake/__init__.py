"""Reads the Parquet lake: which files, row groups and columns, and the rows that pass the job's filter.

- `listing/` finds the files of a source and their partition values; no file is opened.
- `pruning.py` drops files by partition values and row groups by statistics; `footer_summary.py` reads the footers of
  many files and keeps what a plan needs of them.
- `parquet/` opens files, checks footers and decodes row groups into Arrow record batches.
- `scan.py` filters, derives, samples and splits those batches. Open it first: `read_task` is what every task calls.
- `schema.py`, `columns.py` and `common_type.py` give the columns of a source one type each across all files.
- `split.py`, `hashing.py` and `fingerprint.py` decide which part of the data a row belongs to.
- `sql/` is the expression language of `source.where` and `derive`; it knows nothing of the rest of this package.
- `profile.py` counts nulls and distinct values in the first rows; `sample/` writes a made-up lake to try things on.

Deliberately out: writing lakes, reading the logs of table formats (Delta Lake, Iceberg, Hudi), joins.
"""
