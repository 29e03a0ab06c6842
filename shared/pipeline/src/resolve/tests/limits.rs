//! I11: what a small request can cost is bounded.

use std::time::{Duration, Instant};

use super::{environment, listed, problems, step};
use crate::model::{File, MatrixAxis, Parameter, Step, StepTemplate};
use crate::resolve::{Limits, ParameterValues, resolve};
use crate::{Pipeline, Scalar};

fn pipeline(steps: Vec<Step>) -> Pipeline {
    Pipeline {
        name: "a".to_owned(),
        steps,
        ..Pipeline::default()
    }
}

fn refused(pipeline: &Pipeline) -> String {
    let resolved = resolve(pipeline, &ParameterValues::new(), &environment());
    listed(&resolved.expect_err("accepted"))
}

fn parameter(name: &str, bytes: usize) -> Parameter {
    Parameter {
        name: name.to_owned(),
        default: Some(Scalar::String("x".repeat(bytes))),
        ..Parameter::default()
    }
}

#[test]
fn i11_values_of_parameters_and_axes_are_bounded() {
    let mut large = pipeline(vec![step("s".to_owned())]);
    large.parameters = vec![parameter("A", Limits::VALUE_BYTES + 1), parameter("B", 1)];
    insta::assert_snapshot!(refused(&large), @"LIMIT parameters[0].default: the value has 32769 bytes, more than 32768; hand large values over in files");
    large.parameters = (0..5)
        .map(|i| parameter(&format!("P{i}"), Limits::VALUE_BYTES))
        .collect();
    insta::assert_snapshot!(refused(&large), @"LIMIT parameters: the parameters have 163850 bytes together, more than 131072; hand large values over in files");
    large.parameters = (0..300).map(|i| parameter(&format!("P{i}"), 1)).collect();
    insta::assert_snapshot!(refused(&large), @"LIMIT parameters: 300 parameters are more than 256");
    large.parameters = vec![parameter("A", Limits::VALUE_BYTES)];
    let value = |text: String| MatrixAxis {
        name: "I".to_owned(),
        values: vec![Scalar::String(text)],
    };
    large.steps[0].matrix = vec![value("$(A)$(A)".to_owned())];
    insta::assert_snapshot!(refused(&large), @"LIMIT steps[0].matrix[0].values[0]: with its parameters the value may have 32768 bytes at most");
}

#[test]
fn i11_values_that_are_repeated_do_not_grow_a_step_without_bound() {
    let mut repeated = pipeline(vec![step("s".to_owned())]);
    repeated.parameters = vec![parameter("A", Limits::VALUE_BYTES)];
    repeated.steps[0].template.args = vec!["$(A)".repeat(100_000)];
    let start = Instant::now();
    insta::assert_snapshot!(refused(&repeated), @"LIMIT steps[0]: the texts of the step have 3277200008 bytes with their values in place, more than 3145728");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn i11_inherited_texts_do_not_multiply_without_bound() {
    let steps = (0..200).map(|i| Step {
        name: format!("s{i}"),
        template: StepTemplate {
            command: vec![format!("{i}")],
            ..StepTemplate::default()
        },
        ..Step::default()
    });
    let inherited = |bytes: usize| StepTemplate {
        image: Some("i".to_owned()),
        working_dir: Some(format!("/{}", "x".repeat(bytes))),
        ..StepTemplate::default()
    };
    let mut environment = environment();
    environment.limits.template_bytes = 1_000_000;
    let mut many = Pipeline {
        defaults: Some(inherited(9_900)),
        ..pipeline(steps.collect())
    };
    let refusal = resolve(&many, &ParameterValues::new(), &environment).expect_err("2 MB once stored");
    let text = listed(&refusal);
    assert!(text.starts_with("LIMIT steps: the steps up to steps[10"), "{text}");
    many.steps.truncate(90);
    resolve(&many, &ParameterValues::new(), &environment).expect("within the limit");

    many.steps.truncate(1);
    many.defaults = Some(inherited(4 << 20));
    assert!(refused(&many).starts_with("LIMIT steps[0]: "));
}

#[test]
fn i11_a_matrix_above_the_limit_is_not_walked_through() {
    let axis = |name: &str| MatrixAxis {
        name: name.to_owned(),
        values: (0..215).map(|i| Scalar::Number(i.into())).collect(),
    };
    let mut cube = pipeline(vec![step("s".to_owned())]);
    cube.steps[0].matrix = ["A", "B", "C"].map(axis).into();
    cube.steps[0].template.image = Some("i:$(A)$(B)$(C)".to_owned());
    let start = Instant::now();
    insta::assert_snapshot!(refused(&cube), @"LIMIT steps: 9938375 steps after expansion are more than 1000000");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn equal_scripts_count_once_and_files_are_counted() {
    let script = |name: &str| Step {
        name: name.to_owned(),
        template: StepTemplate {
            image: Some("i".to_owned()),
            script: Some(format!("# {}", "x".repeat(600_000))),
            ..StepTemplate::default()
        },
        ..Step::default()
    };
    let mut equal = pipeline(vec![script("a"), script("b")]);
    resolve(&equal, &ParameterValues::new(), &environment()).expect("600 kB");
    equal.steps[1].template.script = Some("y".repeat(600_000));
    insta::assert_snapshot!(refused(&equal), @"LIMIT files: files and scripts have 1200002 bytes together, more than 1048576");

    let mut files = pipeline(vec![step("a".to_owned())]);
    files.files = (0..1001)
        .map(|i| File {
            path: format!("f{i}"),
            content: Some(String::new()),
            ..File::default()
        })
        .collect();
    insta::assert_snapshot!(refused(&files), @"LIMIT files: 1001 files are more than 1000");
}

#[test]
fn names_have_bounds() {
    let long = "A".repeat(129);
    let text = format!("name: a\nparameters: [{{name: {long}, default: a}}]\nsteps: [{{name: s, image: i}}]");
    assert_eq!(problems(&text), ["BAD_VALUE parameters[0].name"]);
}
