"""How good the poolings are: classification, answer ranking, sentence similarity and syntax, on public data."""
