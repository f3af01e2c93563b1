"""The floors of the package: an import goes to its own part or to a lower floor, and no function takes a long list."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ddim_ode"
FLOORS = """errors | support | paths data | continuous grids image_sets | models | ode checkpoints | solvers | planning
    | latents gradients metrics | sampling | inversion likelihood | interpolation | editing inverse cascade shards
    | study training tuning integrations | commands | cli | __main__"""
LEVEL = {part: level for level, floor in enumerate(FLOORS.split("|")) for part in floor.split()}
PUBLIC = {"__init__"}  # the package's own, whose imports are made when a name is first used
FILES = sorted(PACKAGE.rglob("*.py"))
MOST = 7  # parameters by position


def imported(tree: ast.AST) -> set[str]:
    """The parts of the package that a module imports, wherever it does."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            found |= {
                f"{node.module}.{alias.name}" if node.module == "ddim_ode" else str(node.module) for alias in node.names
            }
    return {name.split(".")[1] for name in found if name.startswith("ddim_ode.")}


def wrong(part: str, source: str) -> list[str]:
    """What a module of that part must not import."""
    others = imported(ast.parse(source)) - {part, "__version__"}
    return sorted(other for other in others if LEVEL[other] >= LEVEL[part])


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file):
    if part_of(file) not in PUBLIC:
        assert wrong(part_of(file), file.read_text()) == []


@pytest.mark.parametrize(
    ("part", "planted"),
    [
        ("paths", "from ddim_ode.solvers import METHODS"),
        ("study", "def f():\n    from ddim_ode.commands.shared import display"),
        ("ode", "import ddim_ode.planning.plan"),
        ("inversion", "from ddim_ode import likelihood"),
    ],
)
def test_an_import_upwards_or_sideways_is_found(part, planted):
    assert len(wrong(part, planted)) == 1


def test_a_module_at_the_top_is_a_public_address():
    top = [file.stem for file in PACKAGE.glob("*.py") if file.stem != "__main__"]
    assert len(top) <= 16
    assert {part_of(file) for file in FILES} - PUBLIC == set(LEVEL)


def by_position(node: ast.AST) -> int:
    """How many parameters a function, or the dataclass that a class is, takes by position."""
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        return len(node.args.posonlyargs + node.args.args)
    if not isinstance(node, ast.ClassDef):
        return 0
    made = [ast.unparse(decorator) for decorator in node.decorator_list]
    if not any(decorator.startswith("dataclass") and "kw_only=True" not in decorator for decorator in made):
        return 0
    fields = [ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)]
    return fields.index("_") if "_" in fields else len(fields)  # of `_: KW_ONLY`


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_takes_many_parameters_by_position(file):
    nodes = list(ast.walk(ast.parse(file.read_text())))
    counts = [(getattr(node, "name", "lambda"), by_position(node)) for node in nodes]
    assert [(name, count) for name, count in counts if count > MOST] == []


#: what others may import from a module of solvers; no class of a solver is among it
OPEN = {"METHODS", "PATHS", "adams", "get_method", "with_noise", "integrate", "follow", "moves", "worst", "LATTICE"} | {
    *(
        "Control",
        "DivergedError",
        "EtaError",
        "EtaLike",
        "Method",
        "MethodError",
        "Outcome",
        "Solution",
        "Solver",
        "Step",
    ),
    "Watch",
    *("TUNED", "name_of", "Errors", "Origin", "Result", "Table", "tabulated"),
}


@pytest.mark.parametrize("file", [f for f in FILES if part_of(f) != "solvers"], ids=lambda file: file.stem)
def test_nobody_else_asks_what_a_solver_is(file):
    """What it can do, `Method` says: a solver of somebody else's must not be left out by its class."""
    nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
    names = {alias.name for n in nodes if str(n.module).startswith("ddim_ode.solvers") for alias in n.names}
    assert names - OPEN == set()
