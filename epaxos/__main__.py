"""`python -m epaxos` is the command `epaxos`."""

from epaxos.cli.main import main

main()
