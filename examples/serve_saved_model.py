"""Classify messages with an exported model; needs TensorFlow and TensorFlow Text, nothing of this package.

python examples/serve_saved_model.py runs/spam/saved_model "You won a prize!" "See you at noon"
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the tokenizer's ops


def main() -> None:
    """Load the SavedModel and print one line a message."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    path, *messages = sys.argv[1:]
    model = tf.saved_model.load(path)
    for message, probability in zip(messages, model.serve(tf.constant(messages))[:, 0].numpy(), strict=True):
        print(f"{'spam' if probability >= 0.5 else 'ham ':4}  {probability:.3f}  {message}")


if __name__ == "__main__":
    main()
