"""What differs is said so that it can be seen."""

from ddim_ode.shards.differences import difference

GRID = [float(i) for i in range(60)]


def test_a_difference_is_one_value_in_words():
    assert difference({"a": 1, "b": None, "more": 0}, {"a": 1, "b": None}) == ""
    assert difference({"a": [1, 2]}, {"a": None}) == "a is [1, 2], not null"
    assert difference({}, {"a": "x" * 200}).endswith(' ... xxxxxxxxxxxxxxxx"')


def test_of_long_values_it_is_the_part_that_differs():
    other = [*GRID[:30], 0.5, *GRID[31:]]
    assert difference({"grid": GRID}, {"grid": other}) == "grid[30] is 30.0, not 0.5"
    assert difference({"grid": GRID}, {"grid": GRID[:-1]}) == "grid has 60 entries, not 59"
    config = {"sigmas": GRID, "net": {"width": 64, "sigmas": GRID}}
    assert difference({"config": config}, {"config": {**config, "net": {"width": 32, "sigmas": GRID}}}) == (
        "config.net.width is 64, not 32"
    )
    assert difference({"config": config}, {"config": {**config, "fast": None}}) == "config.fast is missing"
    seeds = ",".join(map(str, range(0, 200, 2)))
    told = difference({"seeds": seeds}, {"seeds": seeds.replace("180", "181")})
    assert told.startswith("seeds is ... 4,176,178,180,182,")
    assert "not ... 4,176,178,181,182," in told
