"""What a job will read, fit and write, and how that is told."""
