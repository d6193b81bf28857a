"""The mutation sweep: small damage to the core, and whether the tests notice."""
