//! Prints a pipeline as canonical YAML, which can be submitted again.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Pipeline;
use crate::fragment::integral;
use crate::source::is_text;

/// Lists of plain values up to this width stand on one line.
const FLOW_WIDTH: usize = 80;

/// The canonical YAML of a pipeline: durations as `90s`, enum values without prefix, only what was set.
pub fn to_yaml(pipeline: &Pipeline) -> String {
    yaml_of(pipeline)
}

/// Anything as YAML of the same style, for example a rendered pod.
pub fn yaml_of(printable: &impl Serialize) -> String {
    let value = serde_json::to_value(printable);
    debug_assert!(value.is_ok(), "keys are texts: {value:?}");
    let mut out = String::new();
    match value.unwrap_or_default() {
        Value::Object(entries) if !entries.is_empty() => block_map(&entries, 0, false, &mut out),
        Value::Array(items) if !items.is_empty() => block_list(&items, 0, &mut out),
        value => {
            out.push_str(&inline(&value));
            out.push('\n');
        }
    }
    out
}

fn indentation(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// `in_item`: the first key follows the dash of a list's element.
fn block_map(entries: &Map<String, Value>, depth: usize, in_item: bool, out: &mut String) {
    for (position, (key, value)) in entries.iter().enumerate() {
        if position > 0 || !in_item {
            indentation(depth, out);
        }
        out.push_str(&text(key));
        out.push(':');
        block_value(value, depth, out);
    }
}

fn block_value(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            block_map(entries, depth + 1, false, out);
        }
        Value::Array(items) if !items.is_empty() => match flow_list(items, depth) {
            Some(line) => {
                out.push(' ');
                out.push_str(&line);
                out.push('\n');
            }
            None => {
                out.push('\n');
                block_list(items, depth + 1, out);
            }
        },
        Value::String(lines) if fits_literal(lines) => literal(lines, depth + 1, out),
        value => {
            out.push(' ');
            out.push_str(&inline(value));
            out.push('\n');
        }
    }
}

fn block_list(items: &[Value], depth: usize, out: &mut String) {
    for item in items {
        indentation(depth, out);
        out.push('-');
        match item {
            Value::Object(entries) if !entries.is_empty() => {
                out.push(' ');
                block_map(entries, depth + 1, true, out);
            }
            item => block_value(item, depth, out),
        }
    }
}

/// A list of short plain values on one line.
fn flow_list(items: &[Value], depth: usize) -> Option<String> {
    let mut line = String::from("[");
    for (position, item) in items.iter().enumerate() {
        if item.is_array() || item.is_object() || item.as_str().is_some_and(fits_literal) {
            return None;
        }
        if position > 0 {
            line.push_str(", ");
        }
        line.push_str(&inline(item));
    }
    line.push(']');
    (line.chars().count() + 2 * depth <= FLOW_WIDTH).then_some(line)
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(value) => text(value),
        Value::Number(number) => integral(number.clone()).to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Whether a text of several lines can stand as it is, indented.
fn fits_literal(text: &str) -> bool {
    let good_line = |line: &str| line.is_empty() || !line.trim().is_empty() && !line.starts_with('\t');
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
        && text.split('\n').all(good_line)
}

fn literal(text: &str, depth: usize, out: &mut String) {
    let body = text.strip_suffix('\n');
    let chomping = match body {
        None => "-",
        Some(body) if body.ends_with('\n') => "+",
        Some(_) => "",
    };
    out.push_str(" |");
    out.push_str(chomping);
    out.push('\n');
    for line in body.unwrap_or(text).split('\n') {
        if !line.is_empty() {
            indentation(depth, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// A text, in quotes where it could be read as anything else, also by a parser of YAML 1.1.
fn text(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            character if is_printable(character) => quoted.push(character),
            character => quoted.push_str(&format!("\\U{:08X}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}

fn is_printable(character: char) -> bool {
    let separator = matches!(
        character,
        '\u{2028}' | '\u{2029}' | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}'
    );
    !character.is_control() && !separator
}

fn is_plain(text: &str) -> bool {
    const YAML_1_1_BOOLEANS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];
    let good = |c: char| c.is_ascii_alphanumeric() || "_-./@+$()=~: ".contains(c);
    let unsigned = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
    let option = unsigned.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
    let starts_well =
        option || text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '$' | '.'));
    starts_well
        && text.chars().all(good)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !YAML_1_1_BOOLEANS.contains(&text.to_ascii_lowercase().as_str())
        // Sexagesimal numbers and dates of YAML 1.1.
        && !text.starts_with(|c: char| c.is_ascii_digit() && text.contains([':', '-']))
        && is_text(text)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::*;
    use crate::source::parse;
    use crate::{Fragment, Millis, Scalar};

    #[test]
    fn the_sample_is_printed_as_a_person_would_write_it() {
        let parsed = parse(include_str!("../tests/data/churn.yaml"));
        let printed = to_yaml(&parsed.pipeline);
        insta::assert_snapshot!(printed, @r#"
        name: churn
        parameters:
          - name: LEARNING_RATE
            type: NUMBER
            default: 0.01
          - name: IMAGE_TAG
            type: STRING
            default: v3
        cluster: prod
        workspace:
          volume:
            persistentVolumeClaim:
              claimName: team-rwx
        files:
          - path: train.py
        failureMode: STOP_ON_FAILURE
        maxParallelism: 8
        timeout: 2h
        defaults:
          image: ghcr.io/acme/churn:$(IMAGE_TAG)
          env:
            - name: PYTHONUNBUFFERED
              value: "1"
          retries:
            infrastructure:
              attempts: 5
              delay: 10s
              backoff: 2
              maxDelay: 5m
          pod:
            resources:
              requests:
                cpu: 500m
                memory: 1Gi
        steps:
          - name: extract
            command: [python, -m, churn.extract, $(WINDLASS_WORKSPACE)/raw.parquet]
            env:
              - name: DB_PASSWORD
                valueFrom:
                  secretKeyRef:
                    name: warehouse
                    key: password
          - name: train
            upstream: [extract]
            matrix:
              - name: FOLD
                values: [0, 1, 2, 3, 4]
            command: [python, train.py, --fold=$(FOLD), --lr=$(LEARNING_RATE)]
            timeout: 45m
            retries:
              user:
                attempts: 2
                exitCodes: [75]
            pod:
              resources:
                limits:
                  memory: 2Gi
                  nvidia.com/gpu: "1"
              nodeSelector:
                gpu: a100
              tolerations:
                - key: nvidia.com/gpu
                  operator: Exists
          - name: report
            upstream: [train]
            script: |
              echo "trained; see $WINDLASS_WORKSPACE"
            runIf: ALWAYS
        "#);
        assert_eq!(parse(&printed).into_pipeline().expect("readable"), parsed.pipeline);
    }

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        let value = json!({"a": ["1", "on", "true", "null", "", "0644", "12:30", "2026-01-01", "a b", "--a", "---", "-5", "<<", "1e3", "é", "#", "- a"]});
        insta::assert_snapshot!(yaml_of(&value), @r##"
        a:
          - "1"
          - "on"
          - "true"
          - "null"
          - ""
          - "0644"
          - "12:30"
          - "2026-01-01"
          - a b
          - --a
          - "---"
          - "-5"
          - "<<"
          - "1e3"
          - "é"
          - "#"
          - "- a"
        "##);
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-z]{1,8}",
            2 => "\\PC{0,10}",
            1 => "[ \\n\\t\"'#:\\-|>0-9a\\\\\\r\u{85}\u{feff}\u{7}{}\\[\\],&*!%@`?]{0,12}",
            1 => prop::sample::select(vec!["on", "0644", "1e3", "null", "<<", "~", "=", "0x1F", ".5", "+1", "---", "a: b", "a\n\nb\n\n"])
                .prop_map(str::to_owned),
        ]
    }

    fn any_number() -> impl Strategy<Value = serde_json::Number> {
        prop_oneof![
            any::<i64>().prop_map(serde_json::Number::from),
            any::<f64>().prop_map(|number| {
                let finite = if number.is_finite() { number } else { 0.5 };
                match Scalar::from_f64(finite) {
                    Some(Scalar::Number(number)) => number,
                    _ => 0.into(),
                }
            }),
        ]
    }

    fn any_scalar() -> impl Strategy<Value = Scalar> {
        prop_oneof![
            any_text().prop_map(Scalar::String),
            any_number().prop_map(Scalar::Number),
            any::<bool>().prop_map(Scalar::Boolean),
        ]
    }

    fn any_fragment() -> impl Strategy<Value = Fragment> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any_number().prop_map(Value::Number),
            any_text().prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(Value::from),
                btree_map(any_text(), inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        btree_map(any_text(), value, 0..3).prop_map(|map| Fragment::new(Value::Object(map.into_iter().collect())))
    }

    fn any_duration() -> impl Strategy<Value = Option<Millis>> {
        option::of((0..=Millis::MAX.0).prop_map(Millis))
    }

    prop_compose! {
        fn any_pod()(
            requests in btree_map(any_text(), any_text().prop_map(Quantity), 0..2),
            node_selector in btree_map(any_text(), any_text(), 0..2),
            affinity in option::of(any_fragment()),
            tolerations in vec(any_fragment(), 0..3),
            volumes in vec(any_fragment(), 0..2),
            image_pull_secrets in vec(any_text(), 0..2),
            privileged in any::<Option<bool>>(),
            overlay in option::of(any_fragment()),
        ) -> PodSettings {
            let resources = Some(Resources { requests, ..Resources::default() });
            PodSettings {
                resources, node_selector, affinity, tolerations, volumes, image_pull_secrets, privileged, overlay,
                ..PodSettings::default()
            }
        }
    }

    prop_compose! {
        fn any_template()(
            image in option::of(any_text()),
            command in vec(any_text(), 0..4),
            script in option::of(any_text()),
            env in vec((any_text(), option::of(any_text())), 0..3),
            run_if in option::of(prop::sample::select(RunIf::ALL)),
            timeout in any_duration(),
            attempts in any::<Option<u32>>(),
            backoff in option::of(-1e9..1e9),
            exit_codes in vec(any::<i32>(), 0..3),
            pod in option::of(any_pod()),
        ) -> StepTemplate {
            let user = Some(RetryBudget { attempts, backoff, exit_codes, ..RetryBudget::default() });
            let env = env.into_iter().map(|(name, value)| EnvVar { name, value, value_from: None });
            StepTemplate {
                image, command, script, run_if, timeout, pod,
                env: env.collect(),
                retries: Some(Retries { user, infrastructure: None }),
                ..StepTemplate::default()
            }
        }
    }

    prop_compose! {
        fn any_step()(
            name in any_text(),
            upstream in vec(any_text(), 0..3),
            matrix in vec((any_text(), vec(any_scalar(), 0..3)), 0..2),
            template in any_template(),
        ) -> Step {
            let matrix = matrix.into_iter().map(|(name, values)| MatrixAxis { name, values });
            Step { name, upstream, matrix: matrix.collect(), template, unset: Vec::new() }
        }
    }

    prop_compose! {
        fn any_pipeline()(
            name in any_text(),
            parameters in vec((any_text(), option::of(any_scalar())), 0..3),
            files in vec((any_text(), vec(any::<u8>(), 0..8)), 0..2),
            failure_mode in option::of(prop::sample::select(FailureMode::ALL)),
            timeout in any_duration(),
            priority in any::<Option<i32>>(),
            labels in btree_map(any_text(), any_text(), 0..3),
            defaults in option::of(any_template()),
            steps in vec(any_step(), 0..3),
        ) -> Pipeline {
            let parameters = parameters.into_iter().map(|(name, default)| Parameter { name, default, ..Parameter::default() });
            let files = files.into_iter().map(|(path, bytes)| {
                let mut file = File { path, ..File::default() };
                file.set_bytes(bytes);
                file
            });
            Pipeline {
                name, failure_mode, timeout, priority, labels, defaults, steps,
                parameters: parameters.collect(),
                files: files.collect(),
                ..Pipeline::default()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn e13_e15_what_is_printed_is_read_again_with_the_same_presence(pipeline in any_pipeline()) {
            let printed = to_yaml(&pipeline);
            let parsed = parse(&printed);
            prop_assert_eq!(&parsed.violations, &[], "{}", printed);
            prop_assert_eq!(parsed.pipeline, pipeline, "{}", printed);
        }

        #[test]
        fn e15_json_keeps_a_pipeline_as_it_is(pipeline in any_pipeline()) {
            let value = serde_json::to_value(&pipeline).expect("json");
            prop_assert_eq!(crate::source::from_value(&value), Ok(pipeline));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z0-9:\\-\\[\\]{}&*#|>!\"', \\n]{0,60}") {
            parse(&text).resolve(&crate::ParameterValues::new(), &crate::Environment::default()).ok();
        }

        #[test]
        fn whatever_is_written_is_resolved_or_refused(pipeline in any_pipeline()) {
            crate::resolve(&pipeline, &crate::ParameterValues::new(), &crate::Environment::default()).ok();
        }
    }
}
