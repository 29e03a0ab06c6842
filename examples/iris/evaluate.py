"""Judges every fold's model on the flowers that it has not seen."""

import data
import model

flowers = data.flowers()
folds = data.read("folds.json")
confusion = [[0] * len(data.SPECIES) for _ in data.SPECIES]
scores = []
for number, fold in enumerate(folds):
    trained = data.read(f"models/{number}.json")
    right = 0
    for index in fold:
        row, label = flowers[index]
        guess = model.predict(trained["weights"], model.scale(row, trained["means"], trained["deviations"]))
        confusion[label][guess] += 1
        right += guess == label
    scores.append({"fold": number, "right": right, "of": len(fold)})
    print(f"fold {number}: {right} of {len(fold)}")

data.write("scores.json", {"scores": scores, "confusion": confusion})
