"""The export room: models written out for other programs."""
