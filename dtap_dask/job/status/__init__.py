"""How a run goes, for whoever watches it, here or elsewhere."""
