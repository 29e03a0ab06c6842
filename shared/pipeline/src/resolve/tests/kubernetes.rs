//! I9: what only the API server would refuse, at the start of the step, is refused at submission.

use serde_json::json;

use super::{accepted, problems, refused};

/// The problems of a pipeline with one step whose pod settings are these.
fn of_pod(pod: &str) -> Vec<String> {
    problems(&format!("name: a\nsteps: [{{name: a, image: i, pod: {{{pod}}}}}]"))
}

/// behaviours R9
#[test]
fn i9_references_of_variables_are_checked() {
    let text = "
name: a
steps:
  - name: a
    image: i
    env:
      - {name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: lots}}}
      - {name: B, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}}
      - {name: C, valueFrom: {resourceFieldRef: {resource: memory}}}
      - {name: D, valueFrom: {secretKeyRef: {name: My_Secret, key: a b}}}
      - {name: E, valueFrom: {fieldRef: {fieldPath: metadata.owner}}}
      - {name: F, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['run']\"}}}
      - {name: G, valueFrom: {resourceFieldRef: {resource: requests.ephemeral-storage, divisor: 1Gi}}}
";
    assert_eq!(
        problems(text),
        [
            "BAD_VALUE steps[0].env[0].valueFrom.resourceFieldRef.divisor",
            "BAD_VALUE steps[0].env[1].valueFrom.resourceFieldRef.divisor",
            "BAD_VALUE steps[0].env[2].valueFrom.resourceFieldRef.resource",
            "BAD_VALUE steps[0].env[3].valueFrom.secretKeyRef.name",
            "BAD_VALUE steps[0].env[3].valueFrom.secretKeyRef.key",
            "BAD_VALUE steps[0].env[4].valueFrom.fieldRef.fieldPath",
        ]
    );
}

#[test]
fn i9_tolerations_follow_the_rules_of_the_api_server() {
    let found = of_pod(
        "tolerations: [{key: a, operator: Exist}, {key: a, operator: Exists, value: b}, {operator: Equal},
        {key: a, effect: NoRun}, {key: a, tolerationSeconds: 5}, {key: 'a b'}, {operator: Exists}, {key: a, value: b}]",
    );
    assert_eq!(
        found,
        [
            "BAD_VALUE steps[0].pod.tolerations[0].operator",
            "BAD_VALUE steps[0].pod.tolerations[1].value",
            "BAD_VALUE steps[0].pod.tolerations[2].key",
            "BAD_VALUE steps[0].pod.tolerations[3].effect",
            "BAD_VALUE steps[0].pod.tolerations[4].tolerationSeconds",
            "BAD_VALUE steps[0].pod.tolerations[5].key",
        ]
    );
}

#[test]
fn i9_a_volume_has_one_source_with_what_it_needs() {
    let found = of_pod(
        "volumes: [{name: a, emptyDir: {}, hostPath: {path: /a}}, {name: b, persistentVolumeClaim: {}}, {name: c}]",
    );
    assert_eq!(
        found,
        [
            "CONFLICT steps[0].pod.volumes[0]",
            "MISSING steps[0].pod.volumes[1].persistentVolumeClaim.claimName",
        ]
    );
    let workspace = "name: a\nworkspace: {volume: {persistentVolumeClaim: {}}}\nsteps: [{name: a, image: i}]";
    assert_eq!(
        problems(workspace),
        ["MISSING workspace.volume.persistentVolumeClaim.claimName"]
    );
}

#[test]
fn i9_containers_of_a_pod_have_names_of_their_own() {
    let text = "
name: a
defaults: {image: i, pod: {initContainers: [{name: x, image: i}]}}
steps: [{name: a, pod: {sidecars: [{name: x, image: i}]}}]
";
    assert_eq!(problems(text), ["DUPLICATE steps[0].pod.sidecars"]);
    // It would be set to Always without a word.
    assert_eq!(
        of_pod("sidecars: [{name: x, image: i, restartPolicy: Never}]"),
        ["BAD_VALUE steps[0].pod.sidecars[0].restartPolicy"]
    );
}

#[test]
fn i9_mounts_and_places_of_windlass_exist_and_are_its_own() {
    let found = of_pod("volumeMounts: [{name: windlass-x, mountPath: /x}, {name: windlass-workspace, mountPath: /w}]");
    assert_eq!(found, ["BAD_VALUE steps[0].pod.volumeMounts"; 2]);
    accepted(
        "name: a\nworkspace: {}\nsteps: [{name: a, image: i, pod: {sidecars: [], volumeMounts: [{name: windlass-workspace, mountPath: /w}]}}]",
    );
    let workspace = |place: &str, mount: &str| {
        format!(
            "name: a\nworkspace: {{mountPath: {place}}}\nsteps: [{{name: a, image: i, pod: {{volumes: [{{name: v, emptyDir: {{}}}}], volumeMounts: [{{name: v, mountPath: {mount}}}]}}}}]"
        )
    };
    for place in [
        "/windlass",
        "/windlass/files/",
        "/windlass//files/a",
        "/",
        "a",
        "/a/../b",
    ] {
        assert_eq!(
            problems(&workspace(place, "/v")),
            ["BAD_VALUE workspace.mountPath"],
            "{place}"
        );
    }
    assert_eq!(
        problems(&workspace("/data", "/data/")),
        ["CONFLICT steps[0].pod.volumeMounts"]
    );
    assert_eq!(
        problems(&workspace("/data", "//windlass/x")),
        ["RESERVED steps[0].pod.volumeMounts[0].mountPath"]
    );
    accepted(&workspace("/windlass/data", "/data/sub"));
    let file = "name: a\nfiles: [{path: .windlass, content: x}]\nsteps: [{name: a, image: i, script: a}]";
    assert_eq!(problems(file), ["RESERVED files[0].path"]);
}

#[test]
fn i9_an_overlay_cannot_take_what_is_refused_elsewhere() {
    let found = of_pod(
        "overlay: {volumes: [{name: windlass-files, emptyDir: {}}], containers: [
        {name: other, image: i, env: [{name: WINDLASS_STEP, value: x}]},
        {name: main, env: [{name: WINDLASS_STEP, value: x}], volumeMounts: [{name: v, mountPath: /windlass/files}]}]}",
    );
    assert_eq!(
        found,
        [
            "RESERVED steps[0].pod.overlay.volumes[0].name",
            "RESERVED steps[0].pod.overlay.containers[1].env[0].name",
            "RESERVED steps[0].pod.overlay.containers[1].volumeMounts[0].mountPath",
        ]
    );
}

#[test]
fn a_null_in_an_overlay_stays_and_elsewhere_means_nothing() {
    let text = "
name: a
defaults: {image: i, pod: {overlay: {hostAliases: [{ip: 1.1.1.1}], dnsPolicy: Default}}}
steps: [{name: a, pod: {overlay: {dnsPolicy: null, containers: [{name: main, workingDir: null}]}, affinity: {nodeAffinity: null}}}]
";
    let resolved = accepted(text);
    let again = crate::ResolvedPipeline::decode(&resolved.encode()).expect("stored");
    let pod = again.step_spec(0).expect("a step").pod;
    assert_eq!(
        pod.overlay.expect("an overlay").into_value(),
        json!({"hostAliases": [{"ip": "1.1.1.1"}], "dnsPolicy": null, "containers": [{"name": "main", "workingDir": null}]})
    );
    assert_eq!(pod.affinity.expect("an affinity").into_value(), json!({}));
    let printed = crate::render::to_yaml(&crate::source::parse(text).pipeline);
    assert!(printed.contains("dnsPolicy: null"), "{printed}");
}

#[test]
fn containers_expand_their_variables_wherever_they_stand() {
    let text = "
name: a
steps:
  - name: a
    image: i
    pod:
      sidecars: [{name: s, image: j, args: [$(HOME)]}]
      overlay: {containers: [{name: main, args: [$(HOME)], lifecycle: {preStop: {exec: {command: [echo, $(HOME)]}}}}]}
";
    insta::assert_snapshot!(refused(text), @"UNKNOWN_PARAMETER line 8, column 105: steps[0].pod.overlay.containers[0].lifecycle.preStop.exec.command[1]: $(HOME) is not declared as a parameter; write $$(HOME) for the text itself");
}

/// behaviours PS14: the overlay is a patch, and what cannot be carried out is refused.
#[test]
fn i9_directives_of_an_overlay_stand_where_they_are_carried_out() {
    accepted(
        "name: a\nsteps: [{name: a, image: i, pod: {overlay: {nodeSelector: {gpu: null}, volumes: [{name: v, $patch: delete}], \
         securityContext: {$patch: replace, fsGroup: 1}, containers: [{name: main, image: j, env: [{name: A, $patch: delete}]}]}}}]",
    );
    let found = of_pod(
        "overlay: {$patch: replace, nodeName: n, securityContext: {$patch: delete}, volumes: null, \
         tolerations: [{key: a, $patch: delete}], initContainers: [{name: x, $patch: replace}, {$patch: delete}], \
         containers: [{name: main, $patch: delete, env: null}]}",
    );
    assert_eq!(
        found,
        [
            "RESERVED steps[0].pod.overlay.$patch",
            "RESERVED steps[0].pod.overlay.nodeName",
            "BAD_VALUE steps[0].pod.overlay.securityContext.$patch",
            "RESERVED steps[0].pod.overlay.volumes",
            "BAD_VALUE steps[0].pod.overlay.tolerations[0].$patch",
            "BAD_VALUE steps[0].pod.overlay.initContainers[0].$patch",
            "BAD_VALUE steps[0].pod.overlay.initContainers[1].$patch",
            "RESERVED steps[0].pod.overlay.containers[0].$patch",
            "RESERVED steps[0].pod.overlay.containers[0].env",
        ]
    );
    let everything = of_pod("overlay: {containers: null}");
    assert_eq!(everything, ["RESERVED steps[0].pod.overlay.containers"]);
}
