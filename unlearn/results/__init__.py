"""One table of many runs, from their saved files."""
