"""How far is an approximately unlearned model from one that never saw the data?"""

__version__ = "0.1.0"
