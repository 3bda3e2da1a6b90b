"""Floor 1: networks. Each model is a frozen dataclass of its settings with one method, `build`."""
