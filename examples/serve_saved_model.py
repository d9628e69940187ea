"""Classify texts, or rank answers, with an exported model.

It needs TensorFlow and TensorFlow Text, but not this package.

    python examples/serve_saved_model.py runs/spam/saved_model "You won a prize!" "See you at noon"
    python examples/serve_saved_model.py runs/question_type/saved_model --labels ABBR,DESC,ENTY,HUM,LOC,NUM "Who am I ?"
    python examples/serve_saved_model.py served/spam/1 "You won a prize!"  # of `export_saved_model`, with its labels
    python examples/serve_saved_model.py runs/qa/saved_model --question "Who wrote Emma ?" "It rains ." "Austen did ."
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the tokenizer's ops


def main() -> None:
    """Load the SavedModel and print one line per text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="folder of the SavedModel")
    parser.add_argument("texts", nargs="+", help="texts to classify, or answers to rank")
    parser.add_argument("--labels", default="ham,spam", help="names of the classes (default: ham,spam)")
    parser.add_argument("--question", help="the question that the texts may answer, for a model of pairs")
    arguments = parser.parse_args()

    texts, labels = tf.constant(arguments.texts), arguments.labels.split(",")
    model = tf.saved_model.load(arguments.path)
    if arguments.question is not None:
        questions = tf.fill(texts.shape, arguments.question)
        if "text_pair" in model.signatures["serving_default"].structured_input_signature[1]:
            relevance = model.serve(questions, texts)["probability"]  # written by `export_saved_model`
        else:
            relevance = model.serve([questions, texts])
        relevance = relevance[:, 0].numpy()
        for answer, score in sorted(zip(arguments.texts, relevance, strict=True), key=lambda pair: -pair[1]):
            print(f"{score:.3f}  {answer}")
        return
    outputs = model.serve(texts)
    if isinstance(outputs, dict) and "label" not in outputs:
        outputs = outputs["probability"]
    if isinstance(outputs, dict):  # written by `export_saved_model`, with labels
        for text, label, scores in zip(arguments.texts, outputs["label"].numpy(), outputs["probability"], strict=True):
            probabilities = [1 - scores[0], scores[0]] if len(scores) == 1 else scores
            print(f"{label.decode():4}  {max(probabilities):.3f}  {text}")
        return
    for text, scores in zip(arguments.texts, outputs.numpy(), strict=True):
        if len(scores) == 1:  # the probability of the second of two classes
            best, score = int(scores[0] >= 0.5), scores[0]
        else:
            best, score = scores.argmax(), scores.max()
        print(f"{labels[best]:4}  {score:.3f}  {text}")


if __name__ == "__main__":
    main()
