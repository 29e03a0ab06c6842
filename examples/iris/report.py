"""Prints what came out."""

import data

result = data.read("scores.json")
right = sum(score["right"] for score in result["scores"])
total = sum(score["of"] for score in result["scores"])

width = max(len(name) for name in data.SPECIES)
print(" " * width, *(f"{name:>{width}}" for name in data.SPECIES))
for name, line in zip(data.SPECIES, result["confusion"]):
    print(f"{name:>{width}}", *(f"{count:{width}}" for count in line))
print(f"accuracy {right / total:.4f} ({right} of {total})")
