"""One module per peer: how each library does what the tasks ask for."""

#: peer → the environment it runs in (`requirements-….txt`); `None` is the interpreter that runs the benchmark.
ENVIRONMENTS = {
    "ours": None,
    "tf_hub": None,
    "keras_hub": "keras_hub",
    "pytorch": "torch",
    "sentence_transformers": "torch",
    "onnx_runtime": "torch",
    "model_garden": "model_garden",
}
