"""The running system of one process against a scripted network and file system, in virtual time.

Real: driver, transport, ports, log, data directory, clients. Scripted by a seed: the event loop's
clock, what the network does to bytes and connections, what the disk keeps at a power loss.
"""
