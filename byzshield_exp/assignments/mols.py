"""Placement by mutually orthogonal Latin squares: parallel classes of the affine plane."""

from itertools import islice, product

import numpy as np
import torch

from byzshield_exp.assignments.assignment import Assignment
from byzshield_exp.assignments.fields import field, inverses, negatives
from byzshield_exp.assignments.primes import nearest, prime_power
from byzshield_exp.assignments.symmetry import generated

_MOST = 9  # the largest order for which all linear maps are tried, not only the scalings
_ENOUGH = 60  # linear maps; they generate the rest of the group


def mols(num_workers: int, replication: int) -> Assignment:
    """``r`` mutually orthogonal Latin squares of prime power order ``l = K / r``: ``f = l ** 2``.

    Square ``a`` is ``L_a(i, j) = a i + j`` over GF(l), ``a = 1..l-1``. Each of its symbols is one
    worker, which holds the ``l`` cells (files ``i * l + j``) where the symbol appears. Beyond
    ``l - 1`` squares the columns (``a = 0``) and then the rows serve as two more classes. Workers
    of one class share no file, workers of two classes share exactly one.

    Raises:
        ValueError: if ``l`` is not a prime power with ``r <= l + 1``; lists the nearest valid K.

    Source: Konstantinidis and Ramamoorthy, "ByzShield", MLSys 2021, Algorithm 2 (``r <= l - 1``).
    """
    if replication < 1 or _load(num_workers, replication) is None:
        near = nearest(num_workers, lambda k: _load(k, max(1, replication)))
        raise ValueError(
            "mols needs K = r*l with l a prime power and r at most l+1, "
            f"got K={num_workers} r={replication}; {near}"
        )
    net = _Net(num_workers // replication, replication)
    return Assignment(
        torch.from_numpy(np.stack([net.cells(a, s) for a, s in net.workers])),
        automorphisms=net.automorphisms,
    )


def _load(num_workers: int, replication: int) -> str | None:
    load, rest = divmod(num_workers, replication)
    fits = not rest and load >= max(2, replication - 1) and prime_power(load) is not None
    return f"l={load}" if fits else None


class _Net:
    """``r`` parallel classes of AG(2, l); class ``l`` is that of the rows."""

    def __init__(self, order: int, num_classes: int) -> None:
        self.order = order
        self.add, self.times = field(order)
        self.minus, self.inverse = negatives(self.add), inverses(self.times)
        self.classes = [*range(1, order), 0, order][:num_classes]
        self.workers = [(a, s) for a in self.classes for s in range(order)]
        self.number = {worker: number for number, worker in enumerate(self.workers)}

    def cells(self, a: int, symbol: int) -> np.ndarray:
        """The files of a worker: ``j = s - a i``, or the row ``s``."""
        numbers = np.arange(self.order)
        if a == self.order:
            return np.asarray(symbol * self.order + numbers)
        columns = self.add[symbol, self.minus[self.times[a, numbers]]]
        return np.asarray(numbers * self.order + columns)

    def automorphisms(self) -> np.ndarray:
        """Affine maps of the cells that keep the classes, as permutations of the workers."""
        prime, power = prime_power(self.order) or (self.order, 1)
        basis = [prime**k for k in range(power)]
        shifts = [((1, 0, 0, 1), shift) for b in basis for shift in ((b, 0), (0, b))]
        numbers = range(self.order)
        matrices = (
            product(numbers, repeat=4) if self.order <= _MOST else ((c, 0, 0, c) for c in numbers)
        )
        linear = [(m, (0, 0)) for m in islice(filter(self._keeps_classes, matrices), _ENOUGH)]
        return generated([self._permutation(*affine) for affine in shifts + linear])

    def _apply(self, matrix: tuple[int, ...], point: tuple[int, int]) -> tuple[int, int]:
        p, q, s, t = matrix
        i, j = point
        times, add = self.times, self.add
        return int(add[times[p, i], times[q, j]]), int(add[times[s, i], times[t, j]])

    def _class_of(self, direction: tuple[int, int]) -> int | None:
        """The class of lines along a direction ``(di, dj)``: ``a = -dj / di``, or the rows."""
        di, dj = direction
        if di == 0:
            return self.order if dj else None
        return int(self.minus[self.times[dj, self.inverse[di]]])

    def _image_of_class(self, matrix: tuple[int, ...], a: int) -> int | None:
        direction = (0, 1) if a == self.order else (1, int(self.minus[a]))
        return self._class_of(self._apply(matrix, direction))

    def _keeps_classes(self, matrix: tuple[int, ...]) -> bool:
        p, q, s, t = matrix
        if self.times[p, t] == self.times[q, s]:
            return False
        return {self._image_of_class(matrix, a) for a in self.classes} == set(self.classes)

    def _permutation(self, matrix: tuple[int, ...], shift: tuple[int, int]) -> np.ndarray:
        images = []
        for a, symbol in self.workers:
            point = (symbol, 0) if a == self.order else (0, symbol)
            i, j = self._apply(matrix, point)
            i, j = int(self.add[i, shift[0]]), int(self.add[j, shift[1]])
            image = self._image_of_class(matrix, a)
            if image == self.order:
                images.append(self.number[(image, i)])
            else:
                value = int(self.add[self.times[image, i], j])
                images.append(self.number[(image, value)])
        return np.array(images)
