"""Reading the flowers and the folder that the steps share."""

import csv
import json
import os
import pathlib

WORKSPACE = pathlib.Path(os.environ["WINDLASS_WORKSPACE"])
SPECIES = ["setosa", "versicolor", "virginica"]


def flowers():
    """All flowers as (features, class) in the order of the file."""
    with open("iris.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return [([float(value) for value in row[:4]], SPECIES.index(row[4])) for row in rows]


def write(name, value):
    """Writes a JSON file into the workspace."""
    path = WORKSPACE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def read(name):
    """Reads a JSON file from the workspace."""
    return json.loads((WORKSPACE / name).read_text(encoding="utf-8"))
