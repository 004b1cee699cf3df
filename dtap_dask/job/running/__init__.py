"""A run on a cluster, from its plan to its manifest."""
