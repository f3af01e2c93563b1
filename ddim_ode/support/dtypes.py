"""The precisions that there are: of states, and of anything that is computed with."""

import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: what a network can compute in; of other parameters, such as quantised ones, nothing can be said
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
