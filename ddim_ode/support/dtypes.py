"""The precisions that a state can have."""

import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64}
