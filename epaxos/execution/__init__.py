"""Floor 2: ordering and applying. Does not know the protocols."""
