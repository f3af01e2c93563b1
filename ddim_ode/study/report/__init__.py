"""A study for people: the page, the tables on it, and the plots."""
