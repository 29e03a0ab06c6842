//! The JSON Schema of the pipeline file against the validator (behaviours P1).

mod generate;

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};
use windlass_pipeline::{Code, Environment, ParameterValues, Violation, WorkspaceDefault, resolve, schema, source};

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema::json_schema()).expect("a schema of draft 2020-12")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every YAML file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> Value {
    source::parse(&std::fs::read_to_string(path).expect("a file")).value()
}

/// What the validator finds.
fn problems(value: &Value) -> Vec<Violation> {
    let environment = Environment {
        workspace: WorkspaceDefault::RunFolder,
        ..Environment::default()
    };
    match source::from_value(value) {
        Ok(pipeline) => resolve(&pipeline, &ParameterValues::new(), &environment)
            .err()
            .unwrap_or_default(),
        Err(violations) => violations,
    }
}

/// What the schema finds, in the words of its validator.
fn refusals(validator: &Validator, value: &Value) -> Vec<String> {
    validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn it_is_a_schema_of_draft_2020_12() {
    let schema = schema::json_schema();
    assert_eq!(schema["$schema"], schema::DIALECT);
    jsonschema::meta::validate(&schema).expect("a schema");
    let bytes = serde_json::to_string_pretty(&schema).expect("json").len();
    assert!(bytes < 1 << 20, "{bytes} bytes do not fit into a response");
}

/// behaviours P1: the configuration describes itself, and the description is the one that is enforced.
#[test]
fn p1_every_example_passes() {
    let validator = validator();
    let mut count = 0;
    let folders = ["examples", "shared/pipeline/tests/data"];
    for path in folders.iter().flat_map(|folder| files(&root().join(folder))) {
        let value = read(&path);
        if value.get("steps").is_none() {
            continue;
        }
        assert_eq!(refusals(&validator, &value), [] as [String; 0], "{}", path.display());
        count += 1;
    }
    assert!(count >= 3, "only {count} examples were found");
}

/// The pages that people read.
fn pages() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("docs")).expect("the pages");
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.push(root().join("README.md"));
    pages
}

/// Blocks of YAML: the line at which each begins, what stands behind the word `yaml`, and its text.
fn blocks(page: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut lines = page.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if let Some(mark) = line.strip_prefix("```yaml") {
            let text: Vec<&str> = lines
                .by_ref()
                .map(|(line, _)| line)
                .take_while(|line| *line != "```")
                .collect();
            found.push((number, mark.trim().to_owned(), text.join("\n")));
        }
    }
    found
}

/// behaviours P1: what the pages show can be submitted. Blocks of pipelines are marked as such, `yaml pipeline`.
#[test]
fn p1_every_pipeline_of_the_pages_passes() {
    let validator = validator();
    let environment = Environment {
        workspace: WorkspaceDefault::RunFolder,
        ..Environment::default()
    };
    let mut count = 0;
    for path in pages() {
        for (line, mark, text) in blocks(&std::fs::read_to_string(&path).expect("a page")) {
            let place = format!("{}:{line}", path.display());
            let parsed = source::parse(&text);
            let is_pipeline = parsed.value().get("steps").is_some();
            assert_eq!(is_pipeline, mark == "pipeline", "{place} is marked as {mark:?}");
            if is_pipeline {
                let wrong = parsed.resolve(&ParameterValues::new(), &environment).err();
                assert_eq!(wrong, None, "{place}");
                assert_eq!(refusals(&validator, &parsed.value()), [] as [String; 0], "{place}");
                count += 1;
            }
        }
    }
    assert!(count >= 3, "only {count} pipelines were found");
}

#[test]
fn blocks_of_a_page_are_found_where_they_stand() {
    let page = "a\n```yaml pipeline\nb: 1\n\nc: 2\n```\n```console\n$ d\n```\n```yaml\ne: 3\n```\n";
    let expected = [(2, "pipeline", "b: 1\n\nc: 2"), (10, "", "e: 3")];
    let expected = expected.map(|(line, mark, text)| (line, mark.to_owned(), text.to_owned()));
    assert_eq!(blocks(page), expected);
}

#[test]
fn the_three_shorthands_and_their_long_forms_pass() {
    let pipeline = |step: Value| {
        let mut pipeline = json!({"name": "a", "steps": [{"name": "s", "image": "i"}]});
        let fields = step.as_object().expect("a map").clone();
        pipeline["steps"][0].as_object_mut().expect("a map").extend(fields);
        pipeline
    };
    let validator = validator();
    for step in [
        json!({"timeout": "90s"}),
        json!({"timeout": "1h30m"}),
        json!({"timeout": "5400.5s", "retries": {"user": {"delay": 0}}}),
        json!({"runIf": "ALWAYS", "lostContact": {"then": "WAIT"}}),
        json!({"runIf": "RUN_IF_ALWAYS", "lostContact": {"then": "LOST_CONTACT_ACTION_WAIT"}}),
        json!({"pod": {"resources": {"limits": {"nvidia.com/gpu": 1, "cpu": 0.5, "memory": "2Gi"}}}}),
        json!({"pod": {"sidecars": [{"name": "p", "image": "i", "resources": {"limits": {"cpu": 2}}}]}}),
        json!({"timeout": null, "pod": null}),
    ] {
        let value = pipeline(step);
        assert_eq!(problems(&value), [], "{value}");
        assert_eq!(refusals(&validator, &value), [] as [String; 0], "{value}");
    }
}

/// behaviours E6, E14, P1: a misspelt key is refused at every depth, by the schema as by the validator, and so are retries that could not be.
#[test]
fn e14_i9_what_is_wrong_is_refused_by_the_schema_and_by_the_validator() {
    let step = |fields: Value| {
        let mut step = json!({"name": "s", "image": "i"});
        let fields = fields.as_object().expect("a map").clone();
        step.as_object_mut().expect("a map").extend(fields);
        json!({"name": "a", "steps": [step]})
    };
    let pod = |pod: Value| step(json!({ "pod": pod }));
    let wrong = [
        json!({"steps": [{"name": "s", "image": "i"}]}),
        json!({"name": "a", "steps": []}),
        json!({"name": "a"}),
        json!({"name": "a", "step": [], "steps": [{"name": "s", "image": "i"}]}),
        json!({"name": "a", "failureMode": "FAIL_SLOW", "steps": [{"name": "s", "image": "i"}]}),
        json!({"name": "a", "maxParallelism": 0, "steps": [{"name": "s", "image": "i"}]}),
        json!({"name": "a", "workspace": {"volume": {"name": "v", "emptyDir": {}}}, "steps": [{"name": "s", "image": "i"}]}),
        json!({"name": "a", "workspace": {"volume": {"nfs": {"server": "s"}}}, "steps": [{"name": "s", "image": "i"}]}),
        step(json!({"command": "python"})),
        step(json!({"timeout": "5 minutes"})),
        step(json!({"timeout": 90})),
        step(json!({"runIf": "always"})),
        step(json!({"matrix": [{"name": "A", "values": []}]})),
        step(json!({"env": [{"name": "A", "value": 5}]})),
        step(json!({"env": [{"value": "x"}]})),
        step(json!({"retries": {"user": {"attempts": 0}}})),
        step(json!({"retries": {"user": {"backoff": 0.5}}})),
        step(json!({"retries": {"user": {"exitCodes": [256]}}})),
        pod(json!({"nodeSelectr": {"a": "b"}})),
        pod(json!({"privileged": "yes"})),
        pod(json!({"resources": {"limits": {"memory": "4GB"}}})),
        pod(json!({"resources": {"limits": {"cpu": -1}}})),
        pod(json!({"volumes": [{"name": "v", "hostpath": {"path": "/"}}]})),
        pod(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {}}]})),
        pod(json!({"volumes": [{"emptyDir": {}}]})),
        pod(json!({"volumeMounts": [{"name": "v"}]})),
        pod(json!({"tolerations": [null]})),
        pod(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpression": []}]
            }}}}),
        ),
        pod(json!({"securityContext": {"runAsUser": "root"}})),
        pod(json!({"sidecars": [{"name": "s"}]})),
        pod(json!({"sidecars": [{"name": "s", "image": "i", "securityContext": {"runAsNonroot": true}}]})),
        pod(json!({"overlay": {"restartPolicy": "Always"}})),
        pod(json!({"overlay": {"containers": [{"name": "main", "resources": {"limits": {"memory": "1GB"}}}]}})),
        pod(json!({"overlay": {"hostNetwork": "yes"}})),
    ];
    let validator = validator();
    for value in wrong {
        assert_ne!(problems(&value), [], "the validator accepts {value}");
        assert_ne!(
            refusals(&validator, &value),
            [] as [String; 0],
            "the schema accepts {value}"
        );
    }
}

/// The definition to which a schema refers, or itself.
fn followed<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(target) => root.pointer(&target[1..]).expect("a definition"),
        None => schema,
    }
}

/// A value with every field that a schema of a Kubernetes object knows.
fn whole(root: &Value, schema: &Value) -> Value {
    let target = followed(root, schema);
    let first = match &schema["type"] {
        Value::Array(types) => types[0].as_str(),
        one => one.as_str(),
    };
    match first {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([whole(root, &schema["items"])]),
        Some("string") if schema["format"] == "date-time" => json!("2026-01-31T12:00:00Z"),
        // Also a quantity, and base64.
        Some("string") => json!("1000"),
        _ => match target.get("properties").and_then(Value::as_object) {
            Some(properties) => properties
                .iter()
                .filter(|(name, _)| *name != "$patch")
                .map(|(name, property)| (name.clone(), whole(root, property)))
                .collect(),
            None => json!({"a": "1000"}),
        },
    }
}

#[test]
fn every_field_of_kubernetes_in_the_schema_is_one_that_the_validator_reads() {
    let schema = schema::json_schema();
    let pod = schema["$defs"]["PodSettings"]["properties"]
        .as_object()
        .expect("fields");
    let mut checked = 0;
    for (field, property) in pod {
        let place = property.get("items").unwrap_or(property);
        if !place["$ref"].as_str().is_some_and(|target| target.contains("io.k8s.")) {
            continue;
        }
        let value = whole(&schema, place);
        let value = if property.get("items").is_some() {
            json!([value])
        } else {
            value
        };
        let found = problems(&json!({"name": "a", "steps": [{"name": "s", "image": "i", "pod": {field: value}}]}));
        let unread: Vec<_> = found
            .iter()
            .filter(|violation| matches!(violation.code, Code::UnknownField | Code::WrongType))
            .collect();
        assert_eq!(unread, [] as [&Violation; 0], "{field}");
        checked += 1;
    }
    assert!(checked >= 10, "only {checked} fields hold Kubernetes objects");
}

#[test]
fn no_definition_takes_fields_that_it_does_not_know() {
    let schema = schema::json_schema();
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        // The one type of Kubernetes that holds anything.
        let open = name.ends_with(".FieldsV1");
        assert_eq!(definition["additionalProperties"] == json!(false), !open, "{name}");
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{field} is not described");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What the validator accepts the schema accepts.
    #[test]
    fn i9_a_pipeline_that_the_validator_accepts_passes_the_schema(value in generate::pipeline()) {
        thread_local!(static VALIDATOR: Validator = validator());
        if problems(&value).is_empty() {
            let found = VALIDATOR.with(|validator| refusals(validator, &value));
            prop_assert_eq!(found, Vec::<String>::new(), "{}", value);
        }
    }

    /// And both ways for the form alone: a field or a type that the validator does not know, the schema does not know either.
    #[test]
    fn i9_a_pipeline_with_one_thing_changed_is_judged_alike(
        value in generate::pipeline(),
        place in any::<prop::sample::Index>(),
        change in generate::change(),
    ) {
        thread_local!(static VALIDATOR: Validator = validator());
        let changed = generate::changed(&value, place, &change);
        let found = problems(&changed);
        let refused = VALIDATOR.with(|validator| refusals(validator, &changed));
        if found.is_empty() {
            prop_assert_eq!(refused, Vec::<String>::new(), "{}", changed);
        } else if found.iter().any(is_of_form) {
            prop_assert_ne!(refused, Vec::<String>::new(), "{:?} in {}", found, changed);
        }
    }
}

/// Whether one value by itself shows it: the type of a parameter's default is that of the parameter.
fn is_of_form(violation: &Violation) -> bool {
    match violation.code {
        Code::UnknownField => true,
        Code::WrongType => !violation.path.ends_with("].default"),
        _ => false,
    }
}

/// The property above is worth something only where the validator accepts.
#[test]
fn most_generated_pipelines_are_accepted() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let all = 256;
    let accepted = (0..all)
        .map(|_| {
            generate::pipeline()
                .new_tree(&mut runner)
                .expect("a pipeline")
                .current()
        })
        .filter(|value| problems(value).is_empty())
        .count();
    assert!(accepted * 2 > all, "{accepted} of {all}");
}
