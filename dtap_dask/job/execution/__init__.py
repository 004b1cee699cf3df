"""What runs on workers, and what sends it there."""
