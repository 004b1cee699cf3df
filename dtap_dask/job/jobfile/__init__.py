"""The job file: read, checked as a whole, its secrets kept."""
