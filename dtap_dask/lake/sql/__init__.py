"""SQL expressions over columns: parsed and bound to types once, then computed on batches or checked by statistics.

Open `expression.py` first: `compile_sql` gives an `Expression`, which evaluates rows and decides from statistics
whether any row of a chunk can match. On the way there:

- `parsing.py` (text to sqlglot's tree), `syntax.py` (types, intervals, calls) and `binding.py` (names to columns, with
  `coercion.py`, `comparing.py` and `literals.py` for types) make the typed tree of `tree.py`;
- `evaluate.py` computes that tree on record batches, with `functions/` and `kernels/`;
- `serving.py` says what of the tree a TensorFlow graph can compute (train/serving/sql/ does);
- `matching.py` and `domain.py` compute on statistics what values the same tree could take.

Semantics are DuckDB's, with NaN read as NULL and UTC as the time zone. Deliberately out: everything that is not an
expression over one row (SELECT, joins, aggregates, windows, subqueries).
"""
