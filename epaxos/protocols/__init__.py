"""Floor 2: agreement. Siblings that do not know each other."""
