"""Comparing solvers at equal measured NFE: cells, a trusted reference, rows with their intervals, and a page."""

from ddim_ode.study.comparison import StudyProgress, compare
from ddim_ode.study.recommendation import Recommendation, recommend
from ddim_ode.study.results import Study
from ddim_ode.study.rows import Row

__all__ = ["Recommendation", "Row", "Study", "StudyProgress", "compare", "recommend"]
