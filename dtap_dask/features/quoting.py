"""Column names and conditions, quoted so that they can be pasted into a job file."""

from __future__ import annotations

from dtap_dask.errors import DtapError
from dtap_dask.lake.sql.expression import parse_sql


def sql_name(column: str) -> str:
    """A column name in SQL, in double quotes if it is not a plain identifier."""
    try:
        plain = parse_sql(column).columns == (column,)
    except DtapError:
        plain = False
    return column if plain else '"' + column.replace('"', '""') + '"'


def condition(sql: str) -> str:
    """`source.where: "..."`, in single quotes where the SQL has double ones."""
    written = "'" + sql.replace("'", "''") + "'" if '"' in sql else f'"{sql}"'
    return f"`source.where: {written}`"
