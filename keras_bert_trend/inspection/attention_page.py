"""An `AttentionMap` as a page of HTML that needs nothing else: no network, no library."""

from __future__ import annotations

import base64
import html
import json
import os
import tempfile
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from keras_bert_trend.inspection.attention_map_views import head_name
from keras_bert_trend.inspection.drawing import one_line

if TYPE_CHECKING:
    from keras_bert_trend.inspection.attention_map import AttentionMap

MAX_TOKENS = 128
_SIDE_BY_SIDE = 20  # tokens: more, and the two tables stand one below the other
_STEPS = 65535  # probabilities are written as 16-bit integers


def to_html(seen: AttentionMap, layer: int, head: int | None, max_tokens: int = MAX_TOKENS) -> str:
    """Return the page; see `AttentionMap.to_html`."""
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValueError(f"`max_tokens` must be a positive integer, got {max_tokens!r}.")
    tokens = len(seen.tokens)
    if tokens > max_tokens:
        raise ValueError(
            f"`text` has {tokens} tokens, more than max_tokens={max_tokens}: the page would take about "
            f"{seen.attention.size * 2.7e-6:.1f} MB. Shorten the text, draw it with plot(), or raise max_tokens."
        )
    matrix = seen.matrix(layer, head)  # says what is wrong with layer and head
    layers, heads = seen.attention.shape[:2]
    shown_layer = layer if layer > 0 else layers + 1 + layer
    shown_head = 0 if head is None else head if head > 0 else heads + 1 + head
    values = np.rint(np.clip(seen.attention, 0, 1) * _STEPS).astype("<u2")
    data = {
        "tokens": seen.tokens,
        "layers": layers,
        "heads": heads,
        "steps": _STEPS,
        "values": base64.b64encode(values.tobytes()).decode("ascii"),
    }
    texts = [seen.text] if seen.pair is None else [seen.text, seen.pair]
    page = Template(resources.files(__package__).joinpath("attention_page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=html.escape(one_line(" — ".join(texts))),
        texts="\n".join(f'<p class="text"><bdi>{html.escape(text) or "(empty text)"}</bdi></p>' for text in texts),
        note=_note(seen),
        layers=_options(range(1, layers + 1), shown_layer),
        heads=_options(range(heads + 1), shown_head),
        choices="\n".join(_choice(i, seen) for i in range(tokens)),
        details="\n".join(
            f'<tr><th scope="row"><bdi>{html.escape(token)}</bdi></th><td></td><td></td></tr>' for token in seen.tokens
        ),
        size="short" if tokens <= _SIDE_BY_SIDE else "long",
        which=html.escape(head_name(seen, layer, head)),
        head_row="".join(f'<th scope="col"><bdi>{html.escape(token)}</bdi></th>' for token in seen.tokens),
        rows="\n".join(_row(token, values) for token, values in zip(seen.tokens, matrix, strict=True)),
        # "<" would end the script element or begin a comment in it; U+2028 and its like `json.dumps` escapes anyway.
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def to_iframe(seen: AttentionMap) -> str:
    """Return the page for a notebook, shut off from it."""
    page = html.escape(to_html(seen, -1, None))
    return (
        f'<iframe title="Attention" sandbox="allow-scripts" srcdoc="{page}" '
        'style="width: 100%; height: 44em; border: 0"></iframe>'
    )


def write(page: str, path: str | os.PathLike) -> None:
    """Write a page to a temporary file beside `path`, and rename it when all is written."""
    path = os.path.abspath(path)
    with tempfile.TemporaryDirectory(prefix=os.path.basename(path) + ".", dir=os.path.dirname(path)) as folder:
        written = os.path.join(folder, "page.html")
        with open(written, "w", encoding="utf-8") as file:
            file.write(page)
        os.replace(written, path)


def _options(numbers, chosen: int) -> str:
    """Return the options of a select; number 0 is the mean of all heads."""
    return "".join(
        f'<option value="{number}"{" selected" if number == chosen else ""}>{number or "mean of all"}</option>'
        for number in numbers
    )


def _choice(i: int, seen: AttentionMap) -> str:
    second = ' class="second"' if seen.segments[i] else ""
    checked = " checked" if i == min(1, len(seen.tokens) - 1) else ""
    return (
        f'<label{second}><input type="radio" name="token" value="{i}" autocomplete="off"{checked}>'
        f"<span><bdi>{html.escape(seen.tokens[i])}</bdi></span></label>"
    )


def _row(token: str, values: np.ndarray) -> str:
    cells = "".join(f"<td>{100 * value:.0f}</td>" for value in values)
    return f'<tr><th scope="row"><bdi>{html.escape(token)}</bdi></th>{cells}</tr>'


def _note(seen: AttentionMap) -> str:
    if not seen.truncated:
        return ""
    return f'<p class="note">The text is too long for the layer: {seen.truncated} of its tokens were cut off.</p>'
