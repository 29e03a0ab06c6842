"""Divides the flowers into folds of equal size, each with as many of every species."""

import argparse
import hashlib

import data

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--folds", type=int, required=True)
parser.add_argument("--seed", type=int, required=True)
args = parser.parse_args()

flowers = data.flowers()
folds = [[] for _ in range(args.folds)]
for species in range(len(data.SPECIES)):
    members = [index for index, (_, label) in enumerate(flowers) if label == species]
    # An order that looks random and is the same in every language.
    members.sort(key=lambda index: hashlib.sha256(f"{args.seed}:{index}".encode()).hexdigest())
    for position, index in enumerate(members):
        folds[position % args.folds].append(index)

data.write("folds.json", folds)
print(f"{len(flowers)} flowers in {args.folds} folds of {[len(fold) for fold in folds]}")
