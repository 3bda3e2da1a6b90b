"""Floor 2: approximate unlearning, one file a method. Each is a frozen dataclass of its settings."""
