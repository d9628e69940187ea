"""The inspection room: texts in; tables, figures and numbers of what BERT does with them out."""
