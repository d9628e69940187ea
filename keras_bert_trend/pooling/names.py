"""The values that arguments of `TrendPooling` may have, where they can be read without importing Keras."""

READINGS = ("published", "layers", "all")
MEASURES = ("log_ratio", "asinh", "difference")
AGGREGATIONS = ("anchor_related", "attention")
UNITS = ("token", "word")
