//! Values of parameters and axes: where they are substituted, where they are refused, and that they are what was written.

use super::{accepted, environment, problems, refused};
use crate::ParameterValues;

#[test]
fn parameters_are_substituted_in_values_of_axes() {
    let text = "
name: a
parameters: [{name: TAG, default: v1}]
steps:
  - name: a
    image: i:$(T)
    matrix: [{name: T, values: [$(TAG)-slim, $$(TAG), 5]}]
";
    let resolved = accepted(text);
    let images: Vec<String> = (0..3).map(|i| resolved.step_spec(i).expect("a step").image).collect();
    assert_eq!(images, ["i:v1-slim", "i:$(TAG)", "i:5"]);
}

#[test]
fn i9_a_reference_that_nobody_substitutes_is_refused() {
    let text = "
name: a
parameters: [{name: TAG, default: $(BASE)}]
files: [{path: $(TAG).py, content: x}]
steps:
  - {name: a, image: i, matrix: [{name: T, values: [$(TGA), $(T)]}]}
";
    assert_eq!(
        problems(text),
        [
            "BAD_VALUE parameters[0].default",
            "BAD_VALUE files[0].path",
            "UNKNOWN_PARAMETER steps[0].matrix[0].values[0]",
            "UNKNOWN_PARAMETER steps[0].matrix[0].values[1]",
        ]
    );
}

#[test]
fn i9_large_whole_numbers_are_refused_instead_of_rounded() {
    let text = "
name: a
parameters: [{name: N, type: NUMBER, default: 10000000000000000}]
steps:
  - name: a
    image: i
    matrix: [{name: M, values: [9007199254740993, 9007199254740991, -9007199254740992, 0.5, '10000000000000000']}]
    pod: {securityContext: {runAsUser: 9007199254740993}}
";
    insta::assert_snapshot!(refused(text), @r"
    BAD_VALUE line 3, column 38: parameters[0].default: a whole number as large as 10000000000000000 is not kept exactly; put it in quotes
    BAD_VALUE line 7, column 33: steps[0].matrix[0].values[0]: a whole number as large as 9007199254740993 is not kept exactly; put it in quotes
    BAD_VALUE line 7, column 69: steps[0].matrix[0].values[2]: a whole number as large as -9007199254740992 is not kept exactly; put it in quotes
    BAD_VALUE line 8, column 29: steps[0].pod.securityContext.runAsUser: a whole number as large as 9007199254740993 is not kept exactly
    ");
}

#[test]
fn values_are_checked_where_the_defaults_refer_to_them_too() {
    let text = "
name: a
defaults: {image: i, pod: {resources: {requests: {memory: $(MEM)}}}}
steps:
  - {name: a, matrix: [{name: MEM, values: [1Gi, 2GB]}]}
  - {name: b, matrix: [{name: MEM, values: [2GB]}], pod: {resources: {requests: {memory: 1Gi}}}}
";
    assert_eq!(problems(text), ["BAD_VALUE steps[0].pod.resources.requests.memory"]);
}

#[test]
fn a_delay_above_an_inherited_bound_is_refused() {
    let text = "
name: a
defaults: {image: i, retries: {user: {maxDelay: 30s}, infrastructure: {delay: 1m}}}
steps:
  - {name: a, retries: {user: {delay: 45s}, infrastructure: {maxDelay: 2m}}}
  - {name: b, retries: {user: {delay: 45s, maxDelay: 1m}, infrastructure: {maxDelay: 30s}}}
  - {name: c, retries: {user: {delay: 2m, maxDelay: 1m}}}
";
    insta::assert_snapshot!(refused(text), @r"
    BAD_VALUE line 5, column 25: steps[0].retries.user.maxDelay: with what is inherited, maxDelay 30s is shorter than delay 45s; set both here
    BAD_VALUE line 6, column 76: steps[1].retries.infrastructure.maxDelay: with what is inherited, maxDelay 30s is shorter than delay 1m; set both here
    BAD_VALUE line 7, column 43: steps[2].retries.user.maxDelay: must not be shorter than delay
    ");
}

/// behaviours X18
#[test]
fn a_field_in_both_spellings_does_not_hide_its_neighbours() {
    let text = "
name: a
steps:
  - {name: a, workingDir: /a, working_dir: /b, upstream: [nowhere], image: 'i j'}
";
    assert_eq!(
        problems(text),
        [
            "DUPLICATE steps[0].working_dir",
            "UNKNOWN_STEP steps[0].upstream[0]",
            "BAD_VALUE steps[0].image",
        ]
    );
}

#[test]
fn a_step_that_inherits_to_run_after_failures_only_needs_something_before_it() {
    let text = "
name: a
defaults: {image: i, runIf: FAILED}
steps: [{name: a, runIf: ALWAYS}, {name: b, upstream: [a]}, {name: c}, {name: d, unset: [runIf]}]
";
    assert_eq!(problems(text), ["BAD_VALUE steps[2].runIf"]);
}

/// behaviours O7, E16: defaults fill gaps, and are never above a limit.
#[test]
fn o7_e16_requests_of_the_operator_fill_gaps_up_to_the_limits() {
    let text = "
name: a
defaults: {image: i, pod: {resources: {requests: {cpu: 2}}}}
steps:
  - {name: bare, unset: [pod.resources.requests.cpu]}
  - {name: low, pod: {resources: {limits: {memory: 200Mi}}}}
  - {name: high, pod: {resources: {limits: {memory: 2Gi}}}}
  - {name: own, pod: {resources: {requests: {memory: 1Gi}, limits: {memory: 1Gi}}}}
  - {name: none, pod: {resources: {requests: {memory: 0}}}}
  - {name: each, matrix: [{name: MEM, values: [1Mi, 2Gi]}], pod: {resources: {limits: {memory: $(MEM)}}}}
";
    let environment = crate::Environment {
        default_requests: crate::parse_default_requests(["memory=400Mi", "cpu=100m"]).expect("requests"),
        ..environment()
    };
    let parsed = crate::source::parse(text);
    let resolved = parsed.resolve(&ParameterValues::new(), &environment).expect("accepted");
    let requests = |name: &str| {
        let step = resolved
            .find_step(name)
            .and_then(|index| resolved.step_spec(index))
            .expect(name);
        let requests = step.pod.resources.expect("resources").requests;
        let texts = requests.iter().map(|(name, amount)| format!("{name}={amount}"));
        texts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(requests("bare"), "cpu=100m memory=400Mi");
    assert_eq!(requests("low"), "cpu=2 memory=200Mi");
    assert_eq!(requests("high"), "cpu=2 memory=400Mi");
    assert_eq!(requests("own"), "cpu=2 memory=1Gi");
    assert_eq!(requests("none"), "cpu=2 memory=0");
    assert_eq!(requests("each.0"), "cpu=2", "Kubernetes requests the limit");
}

#[test]
fn requests_of_the_operator_that_cannot_be_meant_are_refused() {
    let refused = |text: &str| crate::parse_default_requests([text]).expect_err("refused");
    insta::assert_snapshot!(refused("400Mi"), @"`400Mi` is not RESOURCE=QUANTITY, such as memory=400Mi");
    insta::assert_snapshot!(refused("memory=4GB"), @"memory: `4GB` is no quantity; write Gi or G");
    insta::assert_snapshot!(refused("memory=-1"), @"memory: -1 is negative");
}
