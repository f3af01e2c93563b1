"""The sections of `benchmarks/gpu.py`, the most important first."""

from benchmarks.gpu_sections import (
    adaptive,
    card,
    exactness,
    forwards,
    images,
    memory,
    noise,
    solvers,
    training,
    unets,
)
from benchmarks.gpu_sections.base import Section

SECTIONS: dict[str, Section] = {
    module.SECTION.name: module.SECTION
    for module in (card, forwards, images, unets, solvers, adaptive, exactness, noise, memory, training)
}
