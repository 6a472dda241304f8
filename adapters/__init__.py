"""The network, one file per neighbour: each a small Protocol and the real thing behind it."""
