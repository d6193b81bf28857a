"""A leaderless, geo-replicated key-value store (EPaxos*) and the research platform around it."""

__version__ = "0.1.0"
