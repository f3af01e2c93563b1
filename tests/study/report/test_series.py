"""How the cells of a study become lines of a plot and rows of a sheet."""

from ddim_ode.study.report import series
from tests.helpers import study_example


def cell(method: str, grid: str, nfe: int, error: float) -> dict:
    found = {"median": error}
    row = {"method": method, "grid": grid, "eta": None, "nfe": nfe, "tol": None, "status": "done", "error": found}
    return row | {"key": f"{method} {grid} {nfe}", "measured_nfe": {"mean": float(nfe)}}


def test_a_line_is_a_method_at_one_eta():
    names = [line.name for line in series.lines(study_example.results()["rows"])]
    assert names == [name for name, *_ in study_example.METHODS] + ["ddim, eta 0.5", "ddim, eta 1.0"]  # sde_srk failed


def test_no_two_of_the_first_56_lines_look_alike():
    lines = series.lines([cell(f"m{i}", "uniform", 10, 0.1) for i in range(56)])
    assert len({(line.color, line.marker) for line in lines}) == 56
    assert len(series.LIGHT) == len(series.DARK) == 8


def test_a_cell_keeps_its_looks_when_another_fails():
    rows = study_example.results()["rows"]
    before = {line.name: (line.color, line.marker, line.dash) for line in series.lines(rows)}
    failed = [row | {"status": "failed"} if row["method"] == "heun" else row for row in rows]
    after = {line.name: (line.color, line.marker, line.dash) for line in series.lines(failed)}
    assert after == {name: looks for name, looks in before.items() if name != "heun"}


def test_the_best_grid_at_each_budget():
    rows = [cell("heun", "karras", 20, 0.3), cell("heun", "angle", 20, 0.2), cell("heun", "karras", 10, 0.4)]
    unmeasured = cell("heun", "angle", 10, 0.1) | {"error": None}
    assert series.best_grids([*rows, unmeasured]) == [rows[2], rows[1]]


def test_a_sheet_has_the_budgets_before_the_tolerances_and_a_row_for_each_grid():
    rows = study_example.results()["rows"]
    columns, lines = series.sheet(rows)
    assert columns == ["NFE 5", "NFE 10", "NFE 20", "NFE 50", "NFE 100", "tol 0.1", "tol 0.01", "tol 0.001"]
    assert [(line.name, line.grid) for line in lines[:2]] == [("ddim", "uniform"), ("heun", "karras")]
    placed = {
        (line.name, line.grid, title): row for line in lines for title, row in zip(columns, line.cells, strict=True)
    }
    assert [row for row in placed.values() if row is not None] == rows_in_order(rows, columns, lines)
    assert placed["ddim", "uniform", "tol 0.1"] is None
    assert placed["ddim, eta 0.5", "uniform", "NFE 20"]["eta"] == 0.5


def rows_in_order(rows, columns, lines):
    """The same cells found by going through all of them."""
    return [
        row
        for line in lines
        for title in columns
        for row in rows
        if (series.name_of(row), row["grid"], series.asked(row)) == (line.name, line.grid, title)
    ]
