"""The plan of the house, from the imports themselves: no import runs upwards or in a circle."""

import ast
import graphlib
import importlib
import pkgutil
from collections import defaultdict

import pytest

from tests.common import ROOT, run_fresh

PACKAGE = ROOT / "keras_bert_trend"

#: From the ground up. A module may use the floors below its own, and its own room.
FLOORS = [
    {"_utils", "version"},
    {"encoder"},
    {"sources"},
    {"preprocessing"},
    {"pooling"},
    {"layer", "optimizers"},
    {"export"},
    {"inspection"},
    {"embedding"},
    {"evaluation"},
    {"distributed"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

#: The doors on the classes: methods that import a floor above when they are called.
DOORS = {
    "encoder.bert_encoder.BertEncoder.from_handle": "sources",
    "encoder.bert_encoder.BertEncoder.export_text_encoder": "export",
    "encoder.bert_encoder.BertEncoder.export_hugging_face": "export",
    "preprocessing.preprocessor.BertPreprocessor.export_text_preprocessing": "export",
    "layer.BertTrend.adapt": "embedding",
}


def modules() -> dict[str, ast.Module]:
    files = {path.relative_to(PACKAGE).with_suffix(""): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(name.parts): ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}


MODULES = modules()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def module_named(dotted: str) -> str:
    """Return the module that a dotted path below the package means; a package is its `__init__`."""
    name = f"{dotted}.__init__" if f"{dotted}.__init__" in MODULES else dotted
    return name.lstrip(".") or "__init__"


def imports(node: ast.AST, scope: str):
    """Yield every import of the package: the scope it stands in, and the module that it imports."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child) and scope.endswith("__init__"):
            continue  # a package's names, for editors: at run time they are loaded on first use
        if isinstance(child, ast.ImportFrom) and child.module and child.module.split(".")[0] == "keras_bert_trend":
            parent = child.module.partition(".")[2]
            for alias in child.names:
                inside = f"{parent}.{alias.name}".lstrip(".")
                yield scope, module_named(inside if {inside, f"{inside}.__init__"} & set(MODULES) else parent)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                top, _, rest = alias.name.partition(".")
                if top == "keras_bert_trend":
                    yield scope, module_named(rest)
        elif isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from imports(child, f"{scope}.{child.name}")
        else:
            yield from imports(child, scope)


IMPORTS = [found for name, tree in MODULES.items() for found in imports(tree, name)]


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_floor():
    assert {room(name) for name in MODULES} <= set(FLOOR_OF)


def test_no_import_runs_upwards():
    upwards = {
        (scope, target)
        for scope, target in IMPORTS
        if room(scope) != room(target) and FLOOR_OF[room(target)] >= FLOOR_OF[room(scope)]
    }
    assert {(scope, room(target)) for scope, target in upwards} == set(DOORS.items())


def test_no_import_runs_in_a_circle():
    """Imports inside functions count too: whoever reads one file must not come back to it."""
    graph = defaultdict(set)
    for scope, target in IMPORTS:
        source = max((name for name in MODULES if f"{scope}.".startswith(f"{name}.")), key=len)
        if scope not in DOORS and source != target:
            graph[source].add(target)
    order = graphlib.TopologicalSorter(graph)
    try:
        order.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("package", ["keras_bert_trend", "keras_bert_trend.pooling", "keras_bert_trend.sources"])
def test_no_module_bears_the_name_of_what_the_package_offers(package):
    offered = importlib.import_module(package)
    beside = {info.name for info in pkgutil.iter_modules(offered.__path__)}
    assert not set(offered.__all__) & beside


def test_whatever_is_imported_first_keras_knows_every_class():
    code = """
        from keras_bert_trend import BertConfig
        import keras
        for name in ("BertTrend", "BertEncoder", "BertPreprocessor", "FusedAdamW", "TrendPooling", "ConcatPooling"):
            assert keras.saving.get_registered_object(f"keras_bert_trend>{name}") is not None, name
    """
    run_fresh(code)
