"""What `embed` is made of, in the order that data flows: texts, batches of token ids, functions, vectors.

`text_encoder` puts the four together; `keras_bert_trend.embed` is what people call.
"""
