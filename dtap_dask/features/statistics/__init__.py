"""Statistics that add up over batches and tasks."""
