"""Trains one fold: on all flowers outside of it."""

import argparse

import data
import model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--fold", type=int, required=True)
parser.add_argument("--learning-rate", type=float, required=True)
parser.add_argument("--epochs", type=int, required=True)
args = parser.parse_args()

flowers = data.flowers()
held_out = set(data.read("folds.json")[args.fold])
rows = [row for index, (row, _) in enumerate(flowers) if index not in held_out]
labels = [label for index, (_, label) in enumerate(flowers) if index not in held_out]
means, deviations = model.scaling(rows)
scaled = [model.scale(row, means, deviations) for row in rows]

weights = []
for epoch, loss, weights in model.train(scaled, labels, len(data.SPECIES), args.learning_rate, args.epochs):
    if epoch == 1 or epoch % max(1, args.epochs // 5) == 0:
        print(f"epoch {epoch:4} loss {loss:.4f}", flush=True)

data.write(f"models/{args.fold}.json", {"weights": weights, "means": means, "deviations": deviations})
