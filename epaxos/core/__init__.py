"""Floor 1: words and contracts. Standard library and msgspec only."""
