"""Floor 0: plain values that every other floor speaks in. Knows torch, numpy and the standard library alone."""
