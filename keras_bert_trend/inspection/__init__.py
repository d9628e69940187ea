"""The inspection room: what people look at, texts in."""
