//! A schedule as a CronJob in the cluster that Windlass itself runs in.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use windlass_tests::chart;
use windlass_tests::wait::{until, until_within};

use super::installed::{Installation, SCHEDULER_PORT, text};

/// A token that may submit in the namespace of the steps.
pub(super) const SUBMITTER: &str = "token-of-a-cron-job";
const SCHEDULE: &str = "waits";
/// The controller fires at the full minute.
const A_MINUTE: std::time::Duration = std::time::Duration::from_secs(120);

struct Scene<'a> {
    installation: &'a Installation,
    workspace: &'a std::path::Path,
    jobs: Api<Job>,
    pods: Api<Pod>,
}

impl Scene<'_> {
    fn windlass(&self, args: &[&str]) -> String {
        let output = self.installation.windlass(SUBMITTER, args);
        let problems = text(&output.stderr);
        assert!(
            output.status.success(),
            "{args:?}: {problems}\n{}",
            self.installation.state()
        );
        text(&output.stdout)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.windlass(args)).expect("JSON")
    }

    fn runs(&self) -> Vec<Value> {
        let filter = format!("schedule={SCHEDULE}");
        let listed = self.json(&["list", "--filter", &filter, "-o", "json"]);
        listed["runs"].as_array().expect("runs").clone()
    }

    fn kubectl(&self, args: &[&str]) {
        let mut kubectl = chart::program("kubectl");
        kubectl.arg("--kubeconfig").arg(self.installation.cluster.kubeconfig());
        let output = kubectl
            .args(["--namespace", &self.installation.steps.name])
            .args(args)
            .output();
        let output = output.expect("kubectl runs");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }

    /// Exports the schedule and applies it; its name.
    async fn apply(&self) -> String {
        let server = format!("https://{}:{SCHEDULER_PORT}", self.installation.host);
        let args = [
            "schedule",
            "export",
            SCHEDULE,
            "--image",
            "windlass:test",
            "--pod-server",
            &server,
        ];
        let with = ["--secret", "windlass-client", "--secret-ca", "--pause"];
        let exported = self.windlass(&[&args[..], &with].concat());
        let kubeconfig = self.installation.cluster.kubeconfig();
        // As it is: `kubectl apply` as users do it, with the strictest check.
        chart::try_on(&kubeconfig, &exported);
        let mut cron_job: Value = serde_saphyr::from_str(&exported).expect("YAML");
        self.is_restricted(&cron_job).await;
        // Only so do pods of this cluster reach the scheduler.
        cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        chart::apply(&kubeconfig, &cron_job.to_string());
        cron_job["metadata"]["name"].as_str().expect("a name").to_owned()
    }

    /// Lets the API server check a pod of the CronJob where the Pod Security Standard `restricted` holds.
    async fn is_restricted(&self, cron_job: &Value) {
        let namespace = self.installation.cluster.namespace("restricted").await;
        let label = "pod-security.kubernetes.io/enforce=restricted";
        self.kubectl(&["label", "namespace", &namespace.name, label]);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "trigger", "namespace": namespace.name},
            "spec": cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        });
        chart::try_on(&self.installation.cluster.kubeconfig(), &pod.to_string());
        namespace.delete().await;
    }

    /// The pods of a Job that are not being deleted, and have not ended.
    async fn live_pods(&self, job: &str) -> Vec<Pod> {
        let labels = format!("batch.kubernetes.io/job-name={job}");
        let pods = self
            .pods
            .list(&ListParams::default().labels(&labels))
            .await
            .expect("pods");
        let is_running = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
        };
        pods.items.into_iter().filter(is_running).collect()
    }

    /// The uid of the only running pod of a Job, other than `before`.
    async fn pod(&self, job: &str, before: Option<&str>) -> (String, String) {
        until("the Job has a running pod", async || {
            let pods = self.live_pods(job).await;
            let pod = pods.first().ok_or_else(|| format!("none\n{}", self.state()))?;
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if before == Some(uid.as_str()) {
                return Err("the same pod".to_owned());
            }
            Ok((pod.metadata.name.clone().unwrap_or_default(), uid))
        })
        .await
    }

    fn state(&self) -> String {
        let mut kubectl = chart::program("kubectl");
        kubectl.arg("--kubeconfig").arg(self.installation.cluster.kubeconfig());
        let output = kubectl
            .args(["--namespace", &self.installation.steps.name, "describe", "pods,jobs"])
            .output();
        output.map(|output| text(&output.stdout)).unwrap_or_default()
    }

    /// Lets every step go on that waits in a workspace.
    fn go_on(&self) {
        for folder in std::fs::read_dir(self.workspace.join("windlass")).expect("workspaces") {
            let folder = folder.expect("a workspace").path();
            std::fs::write(folder.join("go"), "").expect("written");
        }
    }

    /// How a Job has ended: the type of its last condition, with its reason.
    async fn end(&self, job: &str) -> (String, String) {
        until("the Job ends", async || {
            let job = self.jobs.get(job).await.map_err(|error| error.to_string())?;
            let conditions = job.status.and_then(|status| status.conditions).unwrap_or_default();
            let last = conditions
                .iter()
                .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
            let last = last.ok_or_else(|| format!("{conditions:?}\n{}", self.state()))?;
            Ok::<_, String>((last.type_.clone(), last.reason.clone().unwrap_or_default()))
        })
        .await
    }
}

/// behaviours F4, T8, H3, H4, H5, E2, E28, E30
pub(super) async fn a_cron_job_runs_its_schedule(
    installation: &Installation,
    workspace: &std::path::Path,
    authority: &str,
) {
    let (client, namespace) = (installation.client.clone(), &installation.steps.name);
    let scene = Scene {
        installation,
        workspace,
        jobs: Api::namespaced(client.clone(), namespace),
        pods: Api::namespaced(client.clone(), namespace),
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "windlass-client"},
        "stringData": {"token": SUBMITTER, "ca.crt": authority},
    });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = serde_json::from_value(secret).expect("a Secret");
    secrets.create(&PostParams::default(), &secret).await.expect("a Secret");
    let pipeline = installation.folder.path().join("waits.yaml");
    let content = json!({
        "name": "waits",
        "workspace": {},
        "defaults": {"image": "busybox:1.36"},
        "steps": [{"name": "wait", "script": "until [ -e \"$WINDLASS_WORKSPACE/go\" ]; do sleep 0.2; done"}],
    });
    std::fs::write(&pipeline, content.to_string()).expect("written");
    let pipeline = pipeline.to_str().expect("a readable path");
    scene.windlass(&["schedule", "create", SCHEDULE, pipeline, "--cron", "0 0 1 1 7"]);
    let name = scene.apply().await;
    assert!(
        scene
            .windlass(&["schedule", "get", SCHEDULE, "-o", "json"])
            .contains("PAUSED")
    );

    // A Job whose pod goes away gets another one, and has one run.
    scene.kubectl(&["create", "job", "first", &format!("--from=cronjob/{name}")]);
    let (pod, uid) = scene.pod("first", None).await;
    until("a run comes", async || {
        if scene.runs().len() == 1 {
            Ok(())
        } else {
            Err(scene.state())
        }
    })
    .await;
    let now = DeleteParams::default().grace_period(0);
    scene.pods.delete(&pod, &now).await.expect("deleted");
    scene.pod("first", Some(&uid)).await;
    let job = scene.jobs.get("first").await.expect("the Job");
    let job = job.metadata.uid.expect("a uid");
    let again = [
        "schedule",
        "trigger",
        SCHEDULE,
        "--request-id",
        &job,
        "--obey-overlap",
        "-o",
        "json",
    ];
    let run = scene.json(&again);
    let runs = scene.runs();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(run["id"], runs[0]["id"], "its request id is the uid of the Job");
    assert_eq!(run["submittedBy"], json!("cron-job"));

    // What comes meanwhile is skipped, which is no failure.
    scene.kubectl(&["create", "job", "second", &format!("--from=cronjob/{name}")]);
    assert_eq!(scene.end("second").await.0, "Complete", "{}", scene.state());
    assert_eq!(scene.runs().len(), 1);
    scene.go_on();
    assert_eq!(scene.end("first").await.0, "Complete");
    assert_eq!(scene.runs()[0]["state"], json!("SUCCEEDED"));

    // A run that does not succeed is a Job that has failed, at once.
    scene.kubectl(&["create", "job", "third", &format!("--from=cronjob/{name}")]);
    scene.pod("third", None).await;
    let run = until("a run comes", async || {
        let mut runs = scene.runs();
        runs.retain(|run| run["state"] != json!("SUCCEEDED"));
        runs.first()
            .map(|run| run["name"].as_str().unwrap_or_default().to_owned())
            .ok_or_else(|| scene.state())
    })
    .await;
    scene.windlass(&["cancel", &run]);
    let ended = scene.end("third").await;
    assert_eq!(ended, ("Failed".to_owned(), "PodFailurePolicy".to_owned()));

    // Other times are the same CronJob, which fires by itself.
    scene.windlass(&["schedule", "update", SCHEDULE, "--cron", "* * * * *"]);
    assert_eq!(scene.apply().await, name);
    let fired = until_within(A_MINUTE, "the CronJob fires", async || {
        let jobs = scene
            .jobs
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let names = jobs.items.into_iter().filter_map(|job| job.metadata.name);
        names
            .into_iter()
            .find(|job| job.starts_with(&name))
            .ok_or_else(|| "no Job of its own".to_owned())
    })
    .await;
    until("its run comes", async || {
        if scene.runs().len() == 3 {
            Ok(())
        } else {
            Err(scene.state())
        }
    })
    .await;
    let cron_jobs: Api<CronJob> = Api::namespaced(client, namespace);
    scene.kubectl(&["patch", "cronjob", &name, "--patch", r#"{"spec": {"suspend": true}}"#]);
    until("the workspace of its run is there", async || {
        scene.go_on();
        let open = scene.runs().iter().any(|run| run["endTime"].is_null());
        if open { Err(scene.state()) } else { Ok(()) }
    })
    .await;
    assert_eq!(scene.end(&fired).await.0, "Complete");
    cron_jobs
        .delete(&name, &DeleteParams::background())
        .await
        .expect("deleted");
    installation
        .nothing_left("Job", scene.jobs.clone(), "windlass.dev/schedule-id")
        .await;
}
