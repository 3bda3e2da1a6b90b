"""Floor 2: the one SGD loop. It trains M and M' in step on one schedule, and records what the methods need."""
