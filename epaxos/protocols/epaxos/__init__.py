"""EPaxos*: leaderless agreement with dependency vectors."""
