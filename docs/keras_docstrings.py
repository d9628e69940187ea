"""A griffe extension for mkdocs: the sections that Keras's docstrings have and Google's style lacks."""

import re

import griffe

_SECTIONS = {"Example": "Examples:", "Call arguments": "Other Parameters: Call arguments"}


class KerasDocstrings(griffe.Extension):
    """Give these sections the names that griffe parses, instead of leaving them as plain text."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Rename the sections of one docstring."""
        if obj.docstring:
            pattern = rf"^({'|'.join(_SECTIONS)}):$"
            obj.docstring.value = re.sub(
                pattern, lambda match: _SECTIONS[match.group(1)], obj.docstring.value, flags=re.MULTILINE
            )
