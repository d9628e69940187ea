"""How a SavedModel is read: its files, what feeds what in its graph, and whether it computes what was read."""
