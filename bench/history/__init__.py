"""Histories of calls: kept while a load runs, read from files, judged for linearizability."""
