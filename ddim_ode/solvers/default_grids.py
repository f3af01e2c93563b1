"""The grid of each method that has no other: a distribution of log sigma that holds on any path.

Its numbers are those of `support.logistic.Logistic`. They were found for each method by the simplex method on half of
the problems of benchmarks/zoo.py, at 10 and 20 evaluations, so that they are seldom far behind the best of the named
grids; docs/zoo.md tells how they do on the other half. Where a method whose steps can be undone leads from an image to
its latent it steps densely near the image instead, which gives far better latents (docs/encoding.md).
"""

from collections.abc import Mapping

DEFAULT_GRIDS: Mapping[str, str] = {
    "ddim": "logistic:1:1.5:1.5:0",
    "euler": "logistic:1:1.5:1.5:0",
    "euler_flow": "logistic:1:1.5:1.5:0",
    "midpoint": "logistic:1:1.6:1.3:0",
    "heun": "logistic:2.9:2.6:1.4:0.5",
    "heun_angle": "logistic:1.25:1.25:1.25:0.5",
    "heun3": "logistic:1:1.5:1.5:0",
    "rk4": "logistic:1.3:1.4:1.5:0.2",
    "plms": "logistic:0.9:2.5:2.3:0.5",
    "ipndm": "logistic:1.4:1.8:4:0.2",
    "ipndm_v": "logistic:1:2:1.5:0",
    "lms": "logistic:1:2:1.5:0",
    "deis_rhoab3": "logistic:1:2:1.5:0",
    "deis_tab2": "logistic:1:1.5:1.5:0",
    "deis_tab3": "logistic:1:1.5:1.5:0",
    "deis_log2": "logistic:1:2:1.5:0",
    "deis_log3": "logistic:1.3:2.4:2.2:0.1",
    "dpm_solver_2": "logistic:1.9:1.4:2.2:0.9",
    "dpm_solver_3": "logistic:1.5:7:2:0.25",
    "dpmpp_2s": "logistic:0.7:2.5:2.5:0",
    "dpmpp_2m": "logistic:0.85:2.4:2.8:0.5",
    "dpmpp_3m": "logistic:0.7:2.4:2.4:0.7",
    "unipc_2": "logistic:0.8:2.4:3.4:0.45",
    "unipc_2_bh1": "logistic:0.8:2.4:3.4:0.45",
    "unipc_3": "logistic:0.9:1.7:3.5:0.5",
    "unipc_3_bh1": "logistic:0.8:2.5:5:0.6",
    "fixed_point": "near_image",
    "leapfrog": "logistic:1:1.2:1.2:0",
    "exact_heun": "logistic:1:1.2:1.2:0.4",
    "reversible_heun": "logistic:1:1.2:1.2:0.4",
    "bdia": "logistic:1:1.2:1.2:0.4",
    "belm": "logistic:0.7:2:1.5:0",
    "edict": "logistic:3.3:0.8:0.6:1.1",
    "adams2": "logistic:0.9:1:1.3:0.4",
    "adams3": "logistic:1.5:0.9:1.6:0.6",
    "adams4": "logistic:1.2:1.1:1.6:1:3",
}
