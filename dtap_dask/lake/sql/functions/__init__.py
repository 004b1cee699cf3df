"""The functions and operators of expressions: `registry.py` holds them all, `definition.py` says what a function is.

To add one, write its entry in the table of its family (`numeric.py`, `text.py`, `regexp.py`, `dateparts.py`,
`temporal.py`): parameters, result type, kernel and a line of documentation. Its TensorFlow twin is in
train/serving/sql/; what has none is listed in lake/sql/serving.py.
"""
