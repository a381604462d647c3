"""Reads an official checkpoint folder that the C++ program wrote (official_test.cpp): read_official.py WRITTEN ORIGINAL."""
import sys

import torch

written, original = sys.argv[1:]


def load(folder, name):
    return torch.load(f"{folder}/{name}.pth", weights_only=True)


for name in ("nnet", "nnet_ema"):
    ours, theirs = load(written, name), load(original, name)
    if list(ours) != list(theirs) or any(not torch.equal(ours[key], theirs[key]) for key in ours):
        sys.exit(f"{name} differs")

parameters = [torch.nn.Parameter(value) for value in load(written, "nnet").values()]
optimizer = torch.optim.AdamW(parameters, lr=1.0)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 2500, 1))
optimizer.load_state_dict(load(written, "optimizer"))
scheduler.load_state_dict(load(written, "lr_scheduler"))
theirs = load(original, "optimizer")
for index, parameter in enumerate(parameters):
    for key, value in theirs["state"][index].items():
        if not torch.equal(optimizer.state[parameter][key], value):
            sys.exit(f"{key} of parameter {index} differs")
for key in ("lr", "eps", "weight_decay", "initial_lr"):
    if abs(optimizer.param_groups[0][key] - theirs["param_groups"][0][key]) > 1e-15:
        sys.exit(f"{key} differs: {optimizer.param_groups[0][key]}")
if tuple(optimizer.param_groups[0]["betas"]) != (0.99, 0.999):
    sys.exit("betas differ")
if load(written, "step") != 20 or scheduler.last_epoch != 20:
    sys.exit("step differs")
for parameter in parameters:
    parameter.grad = torch.ones_like(parameter)
optimizer.step()
scheduler.step()
if abs(scheduler.get_last_lr()[0] - 2e-4 * 21 / 2500) > 1e-18:
    sys.exit(f"the next rate is {scheduler.get_last_lr()}")
