"""Open any BERT, see what is inside, look into a sentence, and write the model back as a TF Hub SavedModel.

    python examples/import_any_bert.py                                   # the embedded default, minilm
    python examples/import_any_bert.py path/to/bert_en_uncased           # a TF Hub SavedModel, or a .tar.gz of one
    python examples/import_any_bert.py path/to/uncased_L-12_H-768_A-12   # a checkpoint of google-research/bert
    python examples/import_any_bert.py kaggle:tensorflow/bert/tensorFlow2/bert-en-uncased-l-4-h-128-a-2
    python examples/import_any_bert.py path/to/encoder --vocabulary path/to/preprocessing_model --output runs/hub

A downloaded model is read, never run.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from keras_bert_trend import BertEncoder, BertTrend
from keras_bert_trend.sources import load_source


def main() -> None:
    """Do the whole job."""
    arguments = parse_arguments()
    try:
        source = load_source(arguments.handle)
        layer = BertTrend(
            arguments.handle, pooling="trend", vocabulary=arguments.vocabulary, sequence_length=None, trainable=False
        )
    except (ValueError, ImportError) as error:
        sys.exit(str(error))

    print(f"{source.origin}\n")
    for field, value in source.config.to_dict().items():
        print(f"  {field:24} {value}")
    print(f"  {'parameters':24} {layer.encoder.count_params():,}")
    print(
        f"  {'vocabulary':24} {len(layer.preprocessor.vocabulary)} tokens, lower case: {layer.preprocessor.lower_case}"
    )

    show_attention(layer, arguments.text)
    if arguments.output:
        write_back(layer, arguments.output)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("handle", nargs="?", default="minilm", help="a folder, an archive, a URL, minilm (default)")
    parser.add_argument("--text", default="I want an apple.", help="the sentence to look into")
    parser.add_argument(
        "--vocabulary", help="vocab.txt, SentencePiece model or preprocessing model, for a model without a vocabulary"
    )
    parser.add_argument("--output", type=Path, help="folder to write the encoder and its preprocessing to, for TF Hub")
    return parser.parse_args()


def show_attention(layer, text) -> None:
    """Print how much attention each token receives, in the first layer and in the last."""
    seen = layer([text], return_all=True)
    tokens = [layer.preprocessor.vocabulary.tokens[i] for i in np.array(seen["input_word_ids"])[0]]
    received = np.array(seen["attention_received"])[0].mean(axis=1)  # (layers, seq): the mean over the heads
    print(f"\nattention received in {text!r}\n\n  {'token':16} first layer  last layer")
    for token, first, last in zip(tokens, received[0], received[-1], strict=True):
        print(f"  {token:16} {first:11.3f} {last:11.3f}")
    embedding = np.array(seen["sentence_embedding"])[0]
    print(f"\nits trend vector has {embedding.size} dimensions, {np.count_nonzero(embedding)} of them not zero")


def write_back(layer, folder) -> None:
    """Export encoder and preprocessing with TF Hub's interfaces, and check that the encoder reads back unchanged."""
    try:
        layer.encoder.export_text_encoder(folder / "encoder", layer.preprocessor)
        layer.preprocessor.export_text_preprocessing(folder / "preprocessing")
    except FileExistsError as error:
        sys.exit(f"{error} Nothing was overwritten.")
    again, expected = BertEncoder.from_handle(folder / "encoder").named_weights(), layer.encoder.named_weights()
    same = all(np.array_equal(again[name], array) for name, array in expected.items())
    print(f"\nwrote {folder / 'encoder'} and {folder / 'preprocessing'}; read back, the weights are the same: {same}")


if __name__ == "__main__":
    main()
