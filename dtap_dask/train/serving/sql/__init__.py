"""SQL expressions as TensorFlow graphs: derived columns from raw columns.

`evaluate.py` walks the typed tree that rows and pruning use, too, with the twins of functions in `functions.py` and of
casts in `casts.py`. What has no twin is known without TensorFlow, in lake/sql/serving.py.
"""
