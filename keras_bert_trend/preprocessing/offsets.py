"""Where tokens stand in the original text, although tokenizers see it lower-cased and without accents."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

import tensorflow as tf
import tensorflow_text

#: What TensorFlow Text's `BasicTokenizer` replaces by a space of one byte, without counting the difference.
_CONTROL = r"\p{Cc}|\p{Cf}"


def find_offsets(preprocessor, tokenizer, text: str) -> tuple[list[int | None], list[int | None]]:
    """Return the first character of each token, and the one after its last; see `BertPreprocessor.token_offsets`.

    Args:
        preprocessor: `BertPreprocessor`. How texts are normalised and tokenized.
        tokenizer: `tensorflow_text` tokenizer. The preprocessor's, for normalised texts.
        text: str. The original text.
    """
    ids = preprocessor.tokenize([text])[0].numpy().tolist()
    nowhere = [None] * len(ids), [None] * len(ids)
    wordpiece = isinstance(tokenizer, tensorflow_text.BertTokenizer)
    parts = _normalized_parts(preprocessor, text, wordpiece)
    if parts is None:
        return nowhere
    unknown_id = preprocessor.vocabulary.id_of(preprocessor.vocabulary.unknown_token)
    again, starts, ends = _byte_offsets(
        tokenizer, b"".join(normalized for _, normalized in parts), unknown_id, wordpiece
    )
    if again != ids:
        return nowhere
    # Where the parts begin: in characters of the text, and in bytes of the normalised text.
    given, made = [0], [0]
    for part, normalized in parts:
        given.append(given[-1] + len(part))
        made.append(made[-1] + len(normalized))
    spans = [_to_characters(text, given, made, start, end) for start, end in zip(starts, ends, strict=True)]
    return [start for start, _ in spans], [end for _, end in spans]


def _normalized_parts(preprocessor, text: str, wordpiece: bool) -> list[tuple[str, bytes]] | None:
    """Cut a text into parts that are normalised each on its own, and normalise them.

    Characters if that is the same as normalising the whole text; else letters with their accents, which normalising may
    join; else `None`.
    """
    for parts in (list(text), _letters(text)):
        whole, normalized = (preprocessor.normalize(tf.constant(each, tf.string)) for each in ([text], parts))
        if b"".join(normalized.numpy().tolist()) == whole.numpy()[0]:
            if wordpiece:
                normalized = tf.strings.regex_replace(normalized, _CONTROL, " ")
            return list(zip(parts, normalized.numpy().tolist(), strict=True))
    return None


def _letters(text: str) -> list[str]:
    """Cut a text into characters, each with the combining marks that follow it."""
    letters: list[str] = []
    for character in text:
        if letters and unicodedata.combining(character):
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _byte_offsets(tokenizer, text: bytes, unknown_id: int, wordpiece: bool) -> tuple[list[int], list[int], list[int]]:
    """Return the ids of a normalised text's tokens, and where they begin and end in its bytes."""
    ids, starts, ends = (ragged.flat_values.numpy().tolist() for ragged in tokenizer.tokenize_with_offsets([text]))
    if wordpiece:
        # A word of more than 100 bytes is [UNK], and would end five bytes after its beginning, as "[UNK]" does. Nothing
        # but spaces stands between a word and the next token.
        following = [*starts, len(text)][1:]
        ends = [
            len(text[:after].rstrip()) if token == unknown_id else end
            for token, end, after in zip(ids, ends, following, strict=True)
        ]
    return ids, starts, ends


def _to_characters(text: str, given: list[int], made: list[int], start: int, end: int) -> tuple[int | None, int | None]:
    """Turn a span in bytes of the normalised text into one in characters of the text."""
    # What normalising drops has no bytes: an accent belongs to the letter before it.
    first, last = bisect_right(made, start) - 1, bisect_right(made, end) - 1
    first = given[first] if made[first] == start else None
    last = given[last] if made[last] == end else None
    if first is not None and last is not None:
        # A SentencePiece token has the space before it.
        while first < last and text[first].isspace():
            first += 1
        if first == last:
            return None, None
    return first, last
