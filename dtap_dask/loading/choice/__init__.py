"""Which rows are loaded, how often, and with which weights."""
