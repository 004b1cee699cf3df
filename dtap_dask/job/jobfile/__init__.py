"""The job file: read, validated, checked against the lake, with its secrets hidden."""
