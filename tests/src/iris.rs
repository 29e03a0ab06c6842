//! The iris example computed a second time, independently of its Python files, to judge what a run prints.

use sha2::{Digest as _, Sha256};

const CLASSES: usize = 3;
const COLUMNS: usize = 5;
const SPECIES: [&str; CLASSES] = ["setosa", "versicolor", "virginica"];

/// Parameters of the example.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Step size of the gradient descent.
    pub learning_rate: f64,
    /// Passes over the flowers.
    pub epochs: u32,
    /// Decides which flower is in which fold.
    pub seed: u32,
    /// Number of folds.
    pub folds: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            learning_rate: 0.1,
            epochs: 100,
            seed: 7,
            folds: 5,
        }
    }
}

type Weights = [[f64; COLUMNS]; CLASSES];

/// How many of the flowers in `csv` are classified rightly by models that have not seen them, and how many there are.
///
/// # Panics
/// When `csv` is not the iris table.
pub fn cross_validate(csv: &str, parameters: Parameters) -> (usize, usize) {
    let flowers: Vec<([f64; 4], usize)> = csv.lines().skip(1).map(flower).collect();
    let folds = folds(&flowers, parameters);
    let right = (0..parameters.folds)
        .map(|fold| {
            let seen: Vec<_> = flowers
                .iter()
                .zip(&folds)
                .filter(|(_, of)| **of != fold)
                .map(|(flower, _)| *flower)
                .collect();
            let (means, deviations) = scaling(&seen);
            let weights = descend(&seen, &means, &deviations, parameters);
            let held_out = flowers
                .iter()
                .zip(&folds)
                .filter(|(_, of)| **of == fold)
                .map(|(flower, _)| flower);
            held_out
                .filter(|(row, label)| predict(&weights, &scale(row, &means, &deviations)) == *label)
                .count()
        })
        .sum();
    (right, flowers.len())
}

fn flower(line: &str) -> ([f64; 4], usize) {
    let cells: Vec<&str> = line.split(',').collect();
    let number = |index: usize| cells[index].parse().expect("a number");
    let label = SPECIES.iter().position(|name| *name == cells[4]).expect("a species");
    ([number(0), number(1), number(2), number(3)], label)
}

/// The fold of every flower: species by species in the order of a hash, dealt out in turn.
fn folds(flowers: &[([f64; 4], usize)], parameters: Parameters) -> Vec<usize> {
    let mut folds = vec![0; flowers.len()];
    for species in 0..CLASSES {
        let mut members: Vec<_> = (0..flowers.len())
            .filter(|index| flowers[*index].1 == species)
            .collect();
        members.sort_by_key(|index| Sha256::digest(format!("{}:{index}", parameters.seed)));
        for (position, index) in members.into_iter().enumerate() {
            folds[index] = position % parameters.folds;
        }
    }
    folds
}

fn scaling(rows: &[([f64; 4], usize)]) -> ([f64; 4], [f64; 4]) {
    let count = rows.len() as f64;
    let mut means = [0.0; 4];
    let mut deviations = [0.0; 4];
    for column in 0..4 {
        means[column] = rows.iter().map(|(row, _)| row[column]).sum::<f64>() / count;
        let variance = rows
            .iter()
            .map(|(row, _)| (row[column] - means[column]).powi(2))
            .sum::<f64>()
            / count;
        deviations[column] = if variance == 0.0 { 1.0 } else { variance.sqrt() };
    }
    (means, deviations)
}

fn scale(row: &[f64; 4], means: &[f64; 4], deviations: &[f64; 4]) -> [f64; COLUMNS] {
    let mut scaled = [1.0; COLUMNS];
    for column in 0..4 {
        scaled[column + 1] = (row[column] - means[column]) / deviations[column];
    }
    scaled
}

fn scores(weights: &Weights, row: &[f64; COLUMNS]) -> [f64; CLASSES] {
    weights.map(|line| line.iter().zip(row).map(|(weight, value)| weight * value).sum())
}

fn descend(rows: &[([f64; 4], usize)], means: &[f64; 4], deviations: &[f64; 4], parameters: Parameters) -> Weights {
    let scaled: Vec<_> = rows
        .iter()
        .map(|(row, label)| (scale(row, means, deviations), *label))
        .collect();
    let mut weights = [[0.0; COLUMNS]; CLASSES];
    for _ in 0..parameters.epochs {
        let mut gradient = [[0.0; COLUMNS]; CLASSES];
        for (row, label) in &scaled {
            let powers = scores(&weights, row).map(f64::exp);
            let total: f64 = powers.iter().sum();
            for class in 0..CLASSES {
                let error = powers[class] / total - f64::from(u8::from(class == *label));
                for column in 0..COLUMNS {
                    gradient[class][column] += error * row[column];
                }
            }
        }
        for (line, slope) in weights.iter_mut().zip(gradient) {
            for (weight, slope) in line.iter_mut().zip(slope) {
                *weight -= parameters.learning_rate * slope / scaled.len() as f64;
            }
        }
    }
    weights
}

fn predict(weights: &Weights, row: &[f64; COLUMNS]) -> usize {
    let scores = scores(weights, row);
    (0..CLASSES).fold(0, |best, class| if scores[class] > scores[best] { class } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_matter() {
        let csv = include_str!("../../examples/iris/iris.csv");
        assert_eq!(cross_validate(csv, Parameters::default()).1, 150);
        let slow = Parameters {
            learning_rate: 0.01,
            epochs: 10,
            ..Parameters::default()
        };
        assert_ne!(
            cross_validate(csv, Parameters::default()).0,
            cross_validate(csv, slow).0
        );
    }
}
