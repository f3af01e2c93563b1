"""What a prediction costs, its parts kept apart."""

from dataclasses import dataclass

from ddim_ode.models.denoiser import Model


@dataclass(frozen=True)
class Cost:
    """Of one prediction, a sample.

    passes: networks that were run forward. gradients: vector-Jacobian products, each of a network that was run, or
    of a classifier, forward and back. Either counts as one evaluation, whatever the size of what was run.
    """

    passes: int
    gradients: int = 0

    @property
    def evaluations(self) -> int:
        """Both together: what `NFE` counts."""
        return self.passes + self.gradients

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.passes + other.passes, self.gradients + other.gradients)


def cost(model: Model, sigma: float) -> Cost:
    """What a prediction of any model costs at sigma; one that says only `evaluations` is taken to run its network."""
    told = getattr(model, "cost", None)
    found = Cost(model.evaluations(sigma)) if told is None else told(sigma)
    assert isinstance(found, Cost)
    return found
