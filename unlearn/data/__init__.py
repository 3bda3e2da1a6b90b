"""Floor 1: data sets and forget sets. Each data set is a frozen dataclass of its settings with one method, `load`."""
