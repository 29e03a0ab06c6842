"""Softmax regression by gradient descent, with the standard library only."""

import math


def scaling(rows):
    """Mean and standard deviation of every column."""
    count = len(rows)
    means = [sum(column) / count for column in zip(*rows)]
    deviations = [
        math.sqrt(sum((value - mean) ** 2 for value in column) / count) or 1.0
        for column, mean in zip(zip(*rows), means)
    ]
    return means, deviations


def scale(row, means, deviations):
    """A row with a leading 1 for the bias, scaled."""
    return [1.0] + [(value - mean) / deviation for value, mean, deviation in zip(row, means, deviations)]


def probabilities(weights, row):
    """Probability of every class."""
    scores = [sum(weight * value for weight, value in zip(line, row)) for line in weights]
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def train(rows, labels, classes, learning_rate, epochs):
    """Weights after full-batch gradient descent from zero; yields (epoch, loss, weights) after each epoch."""
    weights = [[0.0] * len(rows[0]) for _ in range(classes)]
    for epoch in range(1, epochs + 1):
        gradient = [[0.0] * len(rows[0]) for _ in range(classes)]
        loss = 0.0
        for row, label in zip(rows, labels):
            guessed = probabilities(weights, row)
            loss -= math.log(max(guessed[label], 1e-12))
            for index in range(classes):
                error = guessed[index] - (1.0 if index == label else 0.0)
                for position, value in enumerate(row):
                    gradient[index][position] += error * value
        for line, slope in zip(weights, gradient):
            for position in range(len(line)):
                line[position] -= learning_rate * slope[position] / len(rows)
        yield epoch, loss / len(rows), weights


def predict(weights, row):
    """The likeliest class; the first one of equals."""
    guessed = probabilities(weights, row)
    return guessed.index(max(guessed))
