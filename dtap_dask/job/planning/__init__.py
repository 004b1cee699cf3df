"""What a job will read, fit and write, and what that will take."""
