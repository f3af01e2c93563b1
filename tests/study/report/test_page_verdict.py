"""What the page says beside its winners: on what they were chosen, what their grids cost, and what ties with them."""

from ddim_ode.study.report.page import render
from tests.helpers import study_example
from tests.study.report.test_page import Page


def test_the_headline_says_on_what_it_was_chosen():
    text = Page(render(study_example.results(), {})).text()
    sentence = "Chosen on 64 seeds of fashion (cosine, 1000 timesteps, sigma 0.0064 to 20300), classes in turn"
    assert text.index("Best method at each NFE") < text.index(sentence) < text.index("Error against cost")


def test_a_grid_that_was_made_for_the_model_tells_its_cost_and_ties_name_their_grids():
    results = study_example.results()
    results["best"] = [{"nfe": 10, "key": results["best"][1]["key"], "tied": []}]
    assert "To make a grid" not in Page(render(results, {})).text()
    own = next(row for row in results["rows"] if (row["method"], row["nfe"]) == ("adams4", 10))
    made = own | {"key": "made", "grid": "auto", "grid_cost": {"profile": 1194, "trials": 240}}
    results["rows"].append(made)
    results["best"] = [
        {"nfe": 10, "key": "made", "tied": [own["key"]]},
        {"nfe": 20, "key": own["key"], "tied": ["made"]},
    ]
    page = Page(render(results, {}))
    assert "adams4 grid auto, made once for 1 434 evaluations" in page.text()
    assert "Not told apart from adams4." in page.text()
    assert "Not told apart from adams4 on auto." in page.text()
    assert "To make a grid for the model (auto) took 1,434 evaluations, once: 1,194 for its profile" in page.text()
    assert "Making the grid" in page.of("button")
    assert "1434" in page.of("td")
