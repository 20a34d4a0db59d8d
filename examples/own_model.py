"""Record and gate a module that Optrode has never heard of, in inference and in training."""

import torch
from torch import nn

import optrode as op

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
model = op.load(network)
x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))

hidden = op.record(model, x, "module:1.out")["module:1.out"]
with op.gates(model, op.zero("module:1.out[feature=0:16]")):
    halved = network(x)
print(tuple(hidden.shape), (halved - network(x)).abs().mean().item())

optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
with op.gates(model, op.clamp("module:3.out", high=0.5)):  # held during training
    for _ in range(10):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
