"""The order of an epoch, places in it, and how readers divide it."""
