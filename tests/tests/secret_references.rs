//! References to Secrets as a user meets them: the short form, what is refused before a run starts, and what starts all the same.

use std::path::Path;
use std::process::Command;

use windlass_tests::binaries::binary;
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};

/// Exit status and everything that a command prints.
fn windlass(deployment: &Deployment, args: &[&str]) -> (i32, String) {
    let output = Command::new(binary("windlass"))
        .args(["--server", &deployment.address(Part::Scheduler).to_string()])
        .args(args)
        .env("WINDLASS_TOKEN", TOKEN)
        .env("NO_COLOR", "1")
        .output()
        .expect("windlass runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout) + &text(&output.stderr),
    )
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file");
    path.display().to_string()
}

/// behaviours R8, R10, R11, U8
#[tokio::test(flavor = "multi_thread")]
async fn r8_r11_a_reference_is_checked_before_the_run_and_reaches_the_step() {
    let deployment = Deployment::start(Options::default()).await;
    let own = tempfile::tempdir().expect("a folder");
    let pipeline = file(
        own.path(),
        "churn.yaml",
        "name: churn\nsteps:\n  - name: s\n    image: i\n    env:\n      - name: PASSWORD\n        value: '{{warehouse.password}}'\n    \
         script: '[ \"$PASSWORD\" = sesame ] && echo as it should be'\n",
    );
    let (status, said) = windlass(&deployment, &["run", &pipeline]);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("churn.yaml:7:"), "the place in the file: {said}");
    assert!(
        said.contains("there is no Secret warehouse in namespace default"),
        "{said}"
    );
    let (status, said) = windlass(&deployment, &["list"]);
    assert_eq!((status, said.contains("churn")), (0, false), "{said}");

    let wrong = format!("passwd={}", file(own.path(), "value", "sesame"));
    let (status, said) = windlass(&deployment, &["secret", "put", "warehouse", "--from-file", &wrong]);
    assert_eq!(status, 0, "{said}");
    let (status, said) = windlass(&deployment, &["validate", &pipeline]);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("has no key password; it has passwd."), "{said}");

    let right = format!("password={}", file(own.path(), "value", "sesame"));
    let (status, said) = windlass(&deployment, &["secret", "put", "warehouse", "--from-file", &right]);
    assert_eq!(status, 0, "{said}");
    let (status, said) = windlass(&deployment, &["run", &pipeline, "--logs"]);
    assert_eq!((status, said.contains("as it should be")), (0, true), "{said}");
    assert!(!said.contains("sesame"), "{said}");

    // A Secret that a step makes is there when it is needed: who says so is believed.
    let later = [
        "run-step",
        "--image",
        "i",
        "-e",
        "A={{later.key}}",
        "--timeout",
        "100ms",
        "--",
        "true",
    ];
    let (status, said) = windlass(&deployment, &later);
    assert_eq!((status, said.contains("there is no Secret later")), (2, true), "{said}");
    let all_the_same = [&later[..5], &["--no-check-references", "--detach"], &later[5..]].concat();
    let (status, said) = windlass(&deployment, &all_the_same);
    assert_eq!(status, 0, "{said}");
}
