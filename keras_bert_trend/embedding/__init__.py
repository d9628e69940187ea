"""The embedding room: many texts to vectors.

Data flows through `texts`, `batches`, `compiled` (one function for all shapes) and `vectors`; `runner` puts them
together, and `embed` is what people call.
"""
