"""The graph at work on batches: fitting, transforming, and errors about data."""
