"""Three offices, as a topology that an installed distribution brings."""

from pathlib import Path

from topology import Topology, read_toml


def offices() -> Topology:
    """Read when somebody asks for it."""
    return read_toml(Path(__file__).with_name("offices.toml"))
