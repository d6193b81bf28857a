"""Multi-Paxos: one leader, one ballot for the whole log."""
