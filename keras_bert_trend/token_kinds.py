"""Bits of a token kind: what preprocessing writes into its lookup table and pooling reads from it."""

SPECIAL = 1  # [CLS], [SEP], [PAD], [MASK]: stands for no word of the text
PUNCTUATION = 2
CONTINUATION = 4  # continues a word: "##ing"
