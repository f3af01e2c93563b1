"""Pipelines of the zoo that cannot be had, and the words that say so: whoever starts to work, or fails anew, shows."""

UNKNOWN = "is of no kind that is known here: it has neither betas nor the sigmas of a flow"
CHANGED = "the sample was changed in between, where an adaptive method cannot take it up"
SHORT = "original_steps x strength"
TURN = "where it is the turn of timesteps"

#: whose schedulers describe no ODE that is known here
SCHEDULERS: dict[str, str] = {
    "stable_cascade_decoder": UNKNOWN,
    "stable_cascade_prior": UNKNOWN,
    "flux_lcm": UNKNOWN,
    "sana_sprint": UNKNOWN,
    "consistency_model": UNKNOWN,
    # It says FlowMatchEuler, and goes from sigma 80 to 0.002 in its own way.
    "cosmos2_image": "sigma_data=1.0 is not known here",
    "cosmos2_video": "sigma_data=1.0 is not known here",
}

#: that ask more of a scheduler than to step, or ask it otherwise
STEPPED: dict[str, tuple[type[Exception], str]] = {
    "sd_panorama": (ValueError, "a run under way cannot be copied"),
    "chronoedit": (AttributeError, "has no model_outputs, which this pipeline reads or changes"),
    "ltx_condition": (ValueError, "per_token_timesteps is no argument of a step here"),
    "cosmos": (AttributeError, "has no _step_index, which this pipeline reads or changes"),
    "cosmos_video": (AttributeError, "has no _get_conditioning_c_in, which this pipeline reads or changes"),
    # It gives mu to FlowMatchEulerDiscreteScheduler alone, and the words are diffusers'.
    "bria": (ValueError, "`mu` must be passed when `use_dynamic_shifting`"),
}

#: that adaptive methods cannot serve
ADAPTIVE: dict[str, str] = {
    "sd_inpaint4": CHANGED,
    "sd3_inpaint": CHANGED,
    "flux_inpaint": CHANGED,
    "qwen_inpaint": CHANGED,
    "sdxl_base": "denoising_end stops the pipeline on its way, where 'adaptive' chooses its steps",
    "skyreels_forcing": TURN,  # a scheduler for each frame,
    "ltx2": TURN,  # or one for the pictures and one for the sound
    # Asked for its finest grid; 50 is the most they take, and the words are diffusers'.
    "sd_lcm": SHORT,
    "sd_tcd": SHORT,
    "sdxl_lcm": SHORT,
}

BETWEEN = (ValueError, "this pipeline steps several samples, or changes them between steps")
OTHERWISE = (ValueError, "of its own than when it is asked the same alone")

#: that cannot be asked about any sample at any time
MODELS: dict[str, tuple[type[Exception], str]] = {
    "sd_inpaint4": BETWEEN,
    "sd3_inpaint": BETWEEN,
    "flux_inpaint": BETWEEN,
    "qwen_inpaint": BETWEEN,
    "ltx2": BETWEEN,
    "sd_latent_upscale": OTHERWISE,
    "sd3_skip_layers": OTHERWISE,
    "skyreels_forcing": (ValueError, "timesteps of its own, and cannot be asked about others"),
    **STEPPED,
    "ltx_condition": (ValueError, "gives its scheduler per_token_timesteps, which is not known here"),
    "sd_panorama": (ValueError, "this pipeline has timesteps of its own, and cannot be asked about others"),
    # It switches what its boxes say off at some step; with gligen_scheduled_sampling_beta=1 it does not.
    "sd_gligen": (ValueError, "answers otherwise in some steps of its own"),
}
