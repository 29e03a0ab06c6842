//! What the command line says, and what is expected of it.

use std::fmt;

use serde_json::Value;

/// What a command printed.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    command: String,
    pub(crate) text: String,
}

impl fmt::Display for Said {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "$ {}\n{}", self.command, self.text)
    }
}

impl Said {
    pub(crate) fn new(command: String, text: String) -> Self {
        Self { command, text }
    }

    /// It contains each of these.
    pub(crate) fn has(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(self.text.contains(text), "{text:?} is not in\n{self}");
        }
        self
    }
}

/// The step `work` with its attempts, and what the command line says of it.
#[derive(Debug)]
pub(crate) struct Step {
    json: Value,
    said: Vec<Said>,
}

impl Step {
    pub(crate) fn new(json: Value, said: Vec<Said>) -> Self {
        Self { json, said }
    }

    /// Adds what `windlass run` said.
    pub(crate) fn with(mut self, said: Said) -> Self {
        self.said.push(said);
        if std::env::var_os("WINDLASS_TEST_SHOW").is_some() {
            println!("{self}");
        }
        self
    }

    fn attempt(&self) -> &Value {
        let attempts = self.json["attempts"].as_array();
        attempts.and_then(|attempts| attempts.last()).unwrap_or(&Value::Null)
    }

    fn is(&self, place: &str, value: &Value, expected: &Value) {
        assert_eq!(value, expected, "{place} of\n{self}");
    }

    /// State, class and reason.
    pub(crate) fn failed_with(&self, class: &str, reason: &str) -> &Self {
        self.failed_with_one_of(class, &[reason])
    }

    /// State, class and reason, where Kubernetes has several words for the same.
    pub(crate) fn failed_with_one_of(&self, class: &str, reasons: &[&str]) -> &Self {
        self.is("state", &self.json["state"], &"FAILED".into());
        self.is("class", &self.attempt()["failureClass"], &class.into());
        let reason = self.attempt()["reason"].as_str().unwrap_or_default();
        assert!(
            reasons.contains(&reason),
            "{reason:?} is none of {reasons:?} of\n{self}"
        );
        self
    }

    /// It was stopped for this reason, and nothing is said against it.
    pub(crate) fn cancelled(&self, reason: &str) -> &Self {
        self.is("state", &self.json["state"], &"CANCELLED".into());
        self.is("reason", &self.json["reason"], &reason.into());
        self
    }

    /// It succeeded.
    pub(crate) fn succeeded(&self) -> &Self {
        self.is("state", &self.json["state"], &"SUCCEEDED".into());
        self
    }

    /// Exit code of the last attempt.
    pub(crate) fn exit_code(&self, code: impl Into<Value>) -> &Self {
        self.is("exit code", &self.attempt()["exitCode"], &code.into());
        self
    }

    /// How many attempts there were.
    pub(crate) fn attempts(&self, count: usize) -> &Self {
        let attempts = self.json["attempts"].as_array().map_or(0, Vec::len);
        assert_eq!(attempts, count, "attempts of\n{self}");
        self
    }

    /// The message of the last attempt has each of these.
    pub(crate) fn why(&self, texts: &[&str]) -> &Self {
        let message = self.attempt()["message"].as_str().unwrap_or_default();
        for text in texts {
            assert!(message.contains(text), "{text:?} is not in {message:?} of\n{self}");
        }
        self
    }

    /// One line of evidence of the last attempt has each of these.
    pub(crate) fn evidence(&self, texts: &[&str]) -> &Self {
        let evidence: Vec<&str> = self.attempt()["evidence"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let tells = |text: &str| evidence.iter().any(|line| line.contains(text));
        for text in texts {
            assert!(tells(text), "{text:?} is not in {evidence:#?} of\n{self}");
        }
        self
    }

    /// The termination message of the last attempt.
    pub(crate) fn termination_message(&self, text: &str) -> &Self {
        self.is(
            "termination message",
            &self.attempt()["terminationMessage"],
            &text.into(),
        );
        self
    }

    fn command(&self, command: &str) -> &Said {
        let found = self.said.iter().find(|said| said.command == command);
        found.unwrap_or_else(|| panic!("no {command} in\n{self}"))
    }

    /// Uid of the pod of the last attempt.
    pub(crate) fn pod_uid(&self, uid: &str) -> &Self {
        self.is("pod uid", &self.attempt()["podUid"], &uid.into());
        self
    }

    /// Its main container never ran.
    pub(crate) fn never_started(&self) -> &Self {
        self.is("start", &self.attempt()["startTime"], &Value::Null);
        self
    }

    /// `windlass get RUN` says this.
    pub(crate) fn get_says(&self, texts: &[&str]) -> &Self {
        self.command("windlass get @latest").has(texts);
        self
    }

    /// `windlass get RUN work` says this.
    pub(crate) fn step_says(&self, texts: &[&str]) -> &Self {
        self.command("windlass get @latest work").has(texts);
        self
    }

    /// `windlass explain RUN work` says this.
    pub(crate) fn explain_says(&self, texts: &[&str]) -> &Self {
        self.command("windlass explain @latest work").has(texts);
        self
    }

    /// `windlass run` said this.
    pub(crate) fn run_says(&self, texts: &[&str]) -> &Self {
        self.command("windlass run").has(texts);
        self
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.said.iter().try_for_each(|said| writeln!(formatter, "{said}"))
    }
}
