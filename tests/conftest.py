"""What holds for every test."""

import os

# Tables are as wide as COLUMNS says; what a test expects must not depend on who runs it.
os.environ.pop("COLUMNS", None)
