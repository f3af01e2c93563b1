"""The likelihood of a whole set of images, by one process or many: what papers print of it, in bits per dimension.

    images = open_images("fashion-mnist")
    found = likelihood_shards(model, images, "kept", labels=images.labels)
    if found:
        print(found.mean, found.mean_error)

It returns the numbers in the first process, and None in the others.
"""

from pathlib import Path
from typing import Any

import torch

from ddim_ode.likelihood import Likelihoods, log_likelihood
from ddim_ode.models.denoiser import Model
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.inputs import Labels, check_model
from ddim_ode.shards.arguments import Images, defaults_of, filled, labels_of, plain, shard_size, total_of
from ddim_ode.shards.measuring import THREADS, UNWATCHED, Job, Numbers, Part, Watched, measured
from ddim_ode.support.processes import Processes, processes

DEFAULTS = defaults_of(log_likelihood, "first")
EACH = ("nats", "bits_per_dim", "standard_error", "nfe")


def likelihood_shards(
    model: Model,
    images: Images,
    keep: str | Path | None = None,
    *,
    labels: Labels = None,
    count: int | None = None,
    batch_size: int | None = None,
    threads: int = THREADS,
    here: Processes | None = None,
    watched: Watched = UNWATCHED,
    **options: Any,
) -> Likelihoods | None:
    """log p of every image of a set, measured shard by shard by all processes of a run; a run that was cut short goes
    on.

    The numbers are those of one call of `log_likelihood` over all images with as many threads, bit for bit, whatever
    the number of processes: image i of the set has the probes and the dequantisation of (seed, i).

    Args:
        model: as in `log_likelihood`.
        images: (N, *shape), a tensor or anything with a length that gives tensors for slices, such as what
            `image_sets.open_images` returns; bytes as uint8, or floats in [-1, 1]. A shard's are in memory at a time.
        keep: the folder in which the numbers are kept, which all processes see; a process on its own needs none.
        labels: (N,), or of the first `count`, or one int for all; None is the null class.
        count: measure the first of the images alone.
        batch_size: images integrated at once (default: up to 128). A shard is one batch, or some of 32 images together.
        threads: of torch, in each process, on which rounding depends.
        here: the processes of this run (default: as torchrun has started them).
        watched: told how far this process is.
        options: those of `log_likelihood`, with its defaults, but for prior, conditions and null.

    Returns:
        The likelihoods in the first process, without latents; None in the others.

    Raises:
        OutputError, ShardError: the folder belongs to another model, other options or other images.
        ProcessError: several processes without a folder, or one of them has failed.
        DDIMError: as `log_likelihood`.
    """
    here = here or processes()
    with here.together():
        check_model(model)
        how, total = filled(options, DEFAULTS), total_of(images, count)
        job = Job(
            name="likelihood",
            images=images,
            labels=labels_of(model, labels, images, total),
            total=total,
            size=shard_size(batch_size),
            threads=threads,
            facts={"model": fingerprint(model), "device": model.device.type, "batch_size": batch_size, **plain(how)},
        )

        def measure(part: Part) -> Numbers:
            found = log_likelihood(
                model,
                part.x,
                part.labels,
                first=part.first,
                batch_size=batch_size,
                callback=part.follow,
                **how,
            )
            return Numbers({name: getattr(found, name) for name in EACH}, {})

        found = measured(job, measure, keep, here, watched)
    if found is None:
        return None
    return Likelihoods(**{name: torch.cat([shard.each[name] for shard in found]) for name in EACH})
