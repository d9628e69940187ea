"""WordPiece in one pass over the text: the ids of TensorFlow Text's `BertTokenizer`, several times as fast.

`BertTokenizer` splits a text by a regular expression and looks every word's pieces up in a table;
`FastWordpieceTokenizer` follows the text through one automaton (Song et al. 2021, "Fast WordPiece Tokenization",
arXiv:2012.15524). The two disagree about 31 code points of Unicode: what stands here makes them agree on all texts.
"""

from __future__ import annotations

import re
import unicodedata

import tensorflow as tf
import tensorflow_text

#: What `BertTokenizer` puts a space for.
_CONTROL = r"\p{Cc}|\p{Cf}"
#: Letters to `BertTokenizer`, whose regular expressions know ASCII's spaces only and an older Unicode's punctuation;
#: spaces and punctuation to `FastWordpieceTokenizer`. tests/test_fast_wordpiece.py compares all code points.
_SPACES_AND_SIGNS = (
    "[\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\u1b4e\u1b4f\u1b7f\U00010d6e\U000113d4\U000113d5"
    "\U000113d7\U000113d8\U00011be1\U00016d6d-\U00016d6f\U0001e5ff]"
)
#: A letter to both, for private use.
_LETTER = "\ue000"


class FastWordPiece:
    """Normalised texts to token ids.

    Args:
        tokens: tuple of str. The vocabulary, in the order of the ids.
        unknown_token: str. The token for a word that no tokens make up.

    Raises:
        ValueError: if the vocabulary has a token that the two tokenizers would treat differently, or has no token that
            can occur in a text. `BertTokenizer` accepts both.
    """

    def __init__(self, tokens: tuple[str, ...], unknown_token: str) -> None:
        # Where no token holds such a character, a word that does is the unknown token, whichever of them it holds.
        if token := next((token for token in tokens if any(map(_may_differ, token))), None):
            raise ValueError(f"The token {token!r} holds a character that the fast tokenizer splits words at.")
        try:
            self._tokenizer = tensorflow_text.FastWordpieceTokenizer(
                vocab=list(tokens), token_out_type=tf.int32, unknown_token=unknown_token
            )
        except RuntimeError as error:
            raise ValueError(f"The fast tokenizer does not take this vocabulary: {error}") from error

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Return the ids of strings `(batch,)`, ragged int32 `(batch, None)`."""
        texts = tf.strings.regex_replace(texts, _CONTROL, " ")
        return self._tokenizer.tokenize(tf.strings.regex_replace(texts, _SPACES_AND_SIGNS, _LETTER))


def _may_differ(character: str) -> bool:
    """Whether only one of the two tokenizers can produce a token that holds this character."""
    replaced = character == _LETTER or re.match(_SPACES_AND_SIGNS, character) is not None
    return replaced or character.isspace() or unicodedata.category(character) in ("Cc", "Cf")
