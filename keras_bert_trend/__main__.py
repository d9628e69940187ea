"""`python -m keras_bert_trend` is the shell command `keras-bert-trend`."""

import sys

from keras_bert_trend.cli import main

if __name__ == "__main__":
    sys.exit(main())
