"""Work over many samples or images, cut into shards that one process or many work through."""

from ddim_ode.shards.likelihoods import likelihood_shards
from ddim_ode.shards.roundtrips import reconstruct_shards
from ddim_ode.shards.samples import sample_shards

__all__ = ["likelihood_shards", "reconstruct_shards", "sample_shards"]
