"""The attention of every head as a page of HTML that needs nothing else: no network, no library."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Sequence
from importlib import resources
from string import Template

import numpy as np

from keras_bert_trend._utils import check_count, complete_or_nothing
from keras_bert_trend.inspection.drawing import head_name, one_line

MAX_TOKENS = 128
_SIDE_BY_SIDE = 20  # with more tokens, the two tables stand one below the other
_STEPS = 65535  # probabilities are written as 16-bit integers


def attention_page(
    texts: Sequence[str],
    tokens: Sequence[str],
    segments: Sequence[int],
    attention: np.ndarray,
    layer: int,
    head: int | None,
    *,
    truncated: int = 0,
    max_tokens: int = MAX_TOKENS,
) -> str:
    """Return the page.

    Args:
        texts: sequence of str. The text, or the two texts of a pair.
        tokens: sequence of str.
        segments: sequence of int. For each token 0, or 1 if it belongs to the second text.
        attention: float32 array `(layers, heads, tokens, tokens)`, `[..., query, key]`.
        layer: int. The layer to show first, from 1.
        head: int or `None`. The head to show first, from 1; `None` is the mean over the layer's heads.
        truncated: int. The number of tokens cut off from the text. Defaults to 0.
        max_tokens: int. The most tokens accepted. Defaults to 128.

    Raises:
        ValueError: if there are more than `max_tokens` tokens.
    """
    check_count("max_tokens", max_tokens)
    count = len(tokens)
    if count > max_tokens:
        raise ValueError(
            f"`text` has {count} tokens, more than max_tokens={max_tokens}: the page would take about "
            f"{attention.size * 2.7e-6:.1f} MB. Shorten the text, draw it with plot(), or raise max_tokens."
        )
    layers, heads = attention.shape[:2]
    matrix = attention[layer - 1].mean(axis=0) if head is None else attention[layer - 1, head - 1]
    values = np.rint(np.clip(attention, 0, 1) * _STEPS).astype("<u2")
    data = {
        "tokens": tokens,
        "layers": layers,
        "heads": heads,
        "steps": _STEPS,
        "values": base64.b64encode(values.tobytes()).decode("ascii"),
    }
    page = Template(resources.files(__package__).joinpath("attention_page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=html.escape(one_line(" — ".join(texts))),
        texts="\n".join(f'<p class="text"><bdi>{html.escape(text) or "(empty text)"}</bdi></p>' for text in texts),
        note=_note(truncated),
        layers=_options(range(1, layers + 1), layer),
        heads=_options(range(heads + 1), head or 0),
        choices="\n".join(_choice(i, count, *each) for i, each in enumerate(zip(tokens, segments, strict=True))),
        details="\n".join(
            f'<tr><th scope="row"><bdi>{html.escape(token)}</bdi></th><td></td><td></td></tr>' for token in tokens
        ),
        size="short" if count <= _SIDE_BY_SIDE else "long",
        which=html.escape(head_name(layer, head, layers, heads)),
        head_row="".join(f'<th scope="col"><bdi>{html.escape(token)}</bdi></th>' for token in tokens),
        rows="\n".join(_row(token, values) for token, values in zip(tokens, matrix, strict=True)),
        # "<" would end the script element or begin a comment in it; `json.dumps` escapes U+2028 and its like anyway.
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def framed(page: str) -> str:
    """Return a page for a notebook, in a frame that has no access to it."""
    return (
        f'<iframe title="Attention" sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
        'style="width: 100%; height: 44em; border: 0"></iframe>'
    )


def write_page(page: str, path: str | os.PathLike[str]) -> None:
    """Write a page to a folder that exists; the page is complete or not there."""
    path = os.path.abspath(path)
    os.stat(os.path.dirname(path))
    with complete_or_nothing(path, overwrite=True) as written, open(written, "w", encoding="utf-8") as file:
        file.write(page)


def _options(numbers, chosen: int) -> str:
    """Return the options of a select element; number 0 is the mean of all heads."""
    return "".join(
        f'<option value="{number}"{" selected" if number == chosen else ""}>{number or "mean of all"}</option>'
        for number in numbers
    )


def _choice(i: int, count: int, token: str, segment: int) -> str:
    """Return the radio button of a token; of `count` the second one is checked, which follows [CLS]."""
    second = ' class="second"' if segment else ""
    checked = " checked" if i == min(1, count - 1) else ""
    return (
        f'<label{second}><input type="radio" name="token" value="{i}" autocomplete="off"{checked}>'
        f"<span><bdi>{html.escape(token)}</bdi></span></label>"
    )


def _row(token: str, values: np.ndarray) -> str:
    cells = "".join(f"<td>{100 * value:.0f}</td>" for value in values)
    return f'<tr><th scope="row"><bdi>{html.escape(token)}</bdi></th>{cells}</tr>'


def _note(truncated: int) -> str:
    if not truncated:
        return ""
    return f'<p class="note">The text is too long for the layer: {truncated} of its tokens were cut off.</p>'
