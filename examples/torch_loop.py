"""A training loop of torch with liars, a placement, a vote and a rule; no configuration."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from byzshield_exp.aggregators import median
from byzshield_exp.assignments import mols
from byzshield_exp.datasets import Batches, digits
from byzshield_exp.distortion import worst_case
from byzshield_exp.networks import mlp
from byzshield_exp.votes import is_finite, majority, winners

torch.manual_seed(0)
placement = mols(num_workers=15, replication=3)  # f = 25 files, each with r = 3 workers
worst = worst_case(placement, num_byzantine=3)  # the q = 3 workers who win most files: 3 of 25
data = digits()
batches = Batches(data.num_train, batch_size=300, num_files=placement.num_files, seed=0)
network = mlp(data.shape, data.num_classes)
params = list(network.parameters())
optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)


def gradient(step: int, file: int) -> Tensor:
    """The gradient of one file, [d]."""
    pictures, labels = data.train_batch(batches.file(step, file), batches.random(step, file))
    loss = cross_entropy(network(pictures), labels)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, params)])


for step in range(60):
    rows = [gradient(step, file) for file in range(placement.num_files)]
    replicas = [  # of each file: what its r workers send
        [-10 * rows[file] if worker in worst.workers else rows[file] for worker in workers]
        for file, workers in enumerate(placement.workers_of_file.tolist())
    ]
    labels = majority(replicas)
    places = winners(labels, is_finite(replicas, labels), placement.majority).tolist()
    won = [sent[place] for sent, place in zip(replicas, places, strict=True) if place >= 0]
    update = median(won, num_corrupt=worst.count)
    for param, part in zip(params, update.split([one.numel() for one in params]), strict=True):
        param.grad = part.view_as(param)
    optimizer.step()

right = sum(int((network(x).argmax(dim=1) == y).sum()) for x, y in data.chunks("test"))
print(f"test accuracy {right / len(data.test_labels):.3f}")
