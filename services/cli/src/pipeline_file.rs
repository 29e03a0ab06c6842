//! A pipeline file on disk: reading it, filling in the files beside it, and saying where its problems stand.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use windlass_pipeline::source::{self, Parsed};
use windlass_pipeline::{
    Code, Environment, Limits, ParameterType, ParameterValues, Pipeline, ResolvedPipeline, Scalar, Violation,
    WorkspaceDefault, parse_parameters,
};

use crate::args::PipelineArgs;
use crate::errors::{CliError, Result};

/// Bound on the text of a pipeline file, in bytes.
const MAX_TEXT: u64 = 32 * 1024 * 1024;

/// A pipeline file with the parameters of a submission.
#[derive(Clone, Debug)]
pub struct PipelineFile {
    name: String,
    parsed: Parsed,
    parameters: ParameterValues,
    /// Problems of the files beside it and of the parameters given.
    found: Vec<Violation>,
}

impl PipelineFile {
    /// Reads the file and what it refers to. Problems of its content come with [`Self::check`].
    ///
    /// # Errors
    /// When the file cannot be read, or `--param` is not `NAME=VALUE`.
    pub fn read(args: &PipelineArgs) -> Result<Self> {
        let mut file = Self::open(&args.file)?;
        file.set_parameters(&args.params)?;
        Ok(file)
    }

    /// Reads the file without parameters.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let (name, text) = read_text(path)?;
        let folder = match path.to_str() {
            Some("-") => PathBuf::from("."),
            _ => path.parent().map(Path::to_owned).unwrap_or_default(),
        };
        let mut parsed = source::parse(&text);
        let found = fill_in(&mut parsed.pipeline, &folder);
        Ok(Self {
            name,
            parsed,
            parameters: BTreeMap::new(),
            found,
        })
    }

    fn set_parameters(&mut self, given: &[String]) -> Result<()> {
        let mut texts = BTreeMap::new();
        for text in given {
            let Some((name, value)) = text.split_once('=') else {
                return Err(CliError::bad_input(format!("--param {text:?} is not NAME=VALUE")));
            };
            if texts.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(CliError::bad_input(format!("--param {name} is given twice")));
            }
        }
        match parse_parameters(&self.parsed.pipeline, &texts) {
            Ok(values) => self.parameters = values,
            Err(violations) => self.found.extend(violations),
        }
        Ok(())
    }

    /// The pipeline as it will be submitted.
    pub fn pipeline(&self) -> &Pipeline {
        &self.parsed.pipeline
    }

    /// The parameters as they will be submitted.
    pub fn parameters(&self) -> &ParameterValues {
        &self.parameters
    }

    /// Finds every problem but missing parameters.
    ///
    /// # Errors
    /// All of them, in the file's order.
    pub fn check_without_parameters(&self) -> Result<ResolvedPipeline, Vec<Violation>> {
        let mut file = self.clone();
        for parameter in &self.parsed.pipeline.parameters {
            if parameter.default.is_none() {
                let text = match parameter.parameter_type.unwrap_or_default() {
                    ParameterType::String => "PARAMETER",
                    ParameterType::Number => "0",
                    ParameterType::Boolean => "false",
                };
                if let Ok(value) = Scalar::parse(text, parameter.parameter_type.unwrap_or_default()) {
                    file.parameters.entry(parameter.name.clone()).or_insert(value);
                }
            }
        }
        file.check()
    }

    /// Finds every problem.
    ///
    /// # Errors
    /// All of them, in the file's order.
    pub fn check(&self) -> Result<ResolvedPipeline, Vec<Violation>> {
        let environment = Environment {
            // Whether there is a default workspace is the server's to say.
            workspace: WorkspaceDefault::RunFolder,
            ..Environment::default()
        };
        let resolved = self.parsed.resolve(&self.parameters, &environment);
        let unread = |violation: &Violation| self.found.iter().any(|found| violation.path.starts_with(&found.path));
        match resolved {
            Ok(resolved) if self.found.is_empty() => Ok(resolved),
            Ok(_) => Err(self.parsed.located(self.found.clone())),
            Err(mut violations) => {
                violations.retain(|violation| !unread(violation));
                violations.extend(self.found.clone());
                // That a file has no content follows from what is wrong with its path.
                let paths: Vec<_> = violations.iter().map(|violation| violation.path.clone()).collect();
                violations.retain(|violation| !paths.contains(&format!("{}.path", violation.path)));
                Err(self.parsed.located(violations))
            }
        }
    }

    /// The error that lists `violations`.
    pub fn error(&self, violations: &[Violation]) -> CliError {
        let count = match violations.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let error = CliError::bad_input(format!("{} has {count}", self.name))
            .details(violations.iter().map(|violation| self.line(violation)));
        let value_missing =
            |violation: &Violation| violation.code == Code::Missing && violation.path.starts_with("parameters[");
        if violations.iter().any(value_missing) {
            return error.hint("give values with --param NAME=VALUE");
        }
        error
    }

    /// The server's refusal, with the places in this file.
    pub fn locate(&self, mut error: CliError) -> CliError {
        let fields = std::mem::take(&mut error.fields);
        if !fields.is_empty() {
            // The lines below say all of it.
            error.message = format!("{} is refused", self.name);
        }
        let violations = fields.into_iter().map(|(field, wrong)| {
            let path = field.strip_prefix("pipeline.").unwrap_or(&field);
            Violation::new(path, Code::BadValue, wrong)
        });
        let violations = self.parsed.located(violations.collect());
        error.details(violations.iter().map(|violation| self.line(violation)))
    }

    /// `pipeline.yaml:12:7: steps[2].pod.nodeSelectr: unknown field, did you mean nodeSelector?`.
    fn line(&self, violation: &Violation) -> String {
        let given = violation.path.strip_prefix("parameters.");
        if let Some(parameter) = given.filter(|_| !violation.path.contains('[')) {
            return format!("--param {parameter}: {}", violation.message);
        }
        if let Some(key) = violation.path.strip_prefix("secrets[") {
            return format!("secret {}: {}", key.trim_end_matches(']'), violation.message);
        }
        let place = match violation.location {
            Some(location) => format!("{}:{}:{}", self.name, location.line, location.column),
            None => self.name.clone(),
        };
        match violation.path.as_str() {
            "" => format!("{place}: {}", violation.message),
            path => format!("{place}: {path}: {}", violation.message),
        }
    }
}

fn read_text(path: &Path) -> Result<(String, String)> {
    let mut bytes = Vec::new();
    let name = if path == Path::new("-") {
        std::io::stdin()
            .take(MAX_TEXT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| CliError::bad_input(format!("cannot read standard input: {error}")))?;
        "standard input".to_owned()
    } else {
        let name = path.display().to_string();
        let cannot = |error: std::io::Error| {
            let error = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file".to_owned(),
                std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => error.to_string(),
            };
            CliError::bad_input(format!("cannot read {name}: {error}")).hint("give the path of a pipeline file")
        };
        let file = std::fs::File::open(path).map_err(cannot)?;
        file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(cannot)?;
        name
    };
    if bytes.len() as u64 > MAX_TEXT {
        return Err(CliError::bad_input(format!(
            "{name} is larger than 32 MiB: it is no pipeline file"
        )));
    }
    String::from_utf8(bytes)
        .map(|text| (name.clone(), text))
        .map_err(|_| CliError::bad_input(format!("{name} is not UTF-8 text: it is no pipeline file")))
}

/// Reads every file that the pipeline names without content.
fn fill_in(pipeline: &mut Pipeline, folder: &Path) -> Vec<Violation> {
    let mut left = Limits::default().file_bytes as u64;
    let mut violations = Vec::new();
    for (index, file) in pipeline.files.iter_mut().enumerate() {
        // A path that leaves the folder is refused with the rest of the pipeline's checks.
        if file.bytes().is_some() || !is_inside(&file.path) {
            continue;
        }
        let path = folder.join(&file.path);
        match read_file(&path, left) {
            Ok(bytes) => {
                left = left.saturating_sub(bytes.len() as u64);
                if file.executable.is_none() && is_executable(&path) {
                    file.executable = Some(true);
                }
                file.set_bytes(bytes);
            }
            Err((code, wrong)) => violations.push(Violation::new(format!("files[{index}].path"), code, wrong)),
        }
    }
    violations
}

fn read_file(path: &Path, left: u64) -> Result<Vec<u8>, (Code, String)> {
    let shown = path.display();
    let cannot = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        (Code::Missing, format!("cannot read {shown}: {why}"))
    };
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err((Code::BadValue, format!("{shown} is not a file")));
    }
    if metadata.len() > left {
        return Err((
            Code::Limit,
            format!(
                "{shown} has {} bytes: all files together may have 1 MiB",
                metadata.len()
            ),
        ));
    }
    std::fs::read(path).map_err(cannot)
}

fn is_inside(path: &str) -> bool {
    let components = Path::new(path).components();
    !path.is_empty()
        && components
            .clone()
            .all(|component| matches!(component, Component::Normal(_)))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o100 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, params: &[&str]) -> (tempfile::TempDir, PipelineFile) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipeline.yaml");
        std::fs::write(&path, text).expect("written");
        std::fs::write(folder.path().join("train.py"), "print(1)\n").expect("written");
        let args = PipelineArgs {
            file: path,
            params: params.iter().map(|param| (*param).to_owned()).collect(),
        };
        let mut file = PipelineFile::read(&args).expect("read");
        file.name = "pipeline.yaml".to_owned();
        (folder, file)
    }

    #[test]
    fn files_are_read_beside_the_pipeline() {
        let text = "name: p\nfiles: [{path: train.py}]\nsteps: [{name: a, image: i, command: [x]}]\n";
        let (_folder, file) = file(text, &[]);
        file.check().expect("valid");
        assert_eq!(file.pipeline().files[0].content.as_deref(), Some("print(1)\n"));
    }

    #[test]
    fn every_problem_has_its_place() {
        let text = "name: p\nfiles:\n  - path: missing.py\nsteps:\n  - name: a\n    image: i\n    comand: [x]\n";
        let (_folder, file) = file(text, &["EPOCHS=3"]);
        let violations = file.check().expect_err("not valid");
        let error = file.error(&violations).render();
        assert!(
            error.contains("pipeline.yaml:3:5: files[0].path: cannot read"),
            "{error}"
        );
        assert!(error.contains("pipeline.yaml:7:5: steps[0].comand: "), "{error}");
        assert!(
            error.contains("--param EPOCHS: the pipeline declares no parameter EPOCHS"),
            "{error}"
        );
    }

    #[test]
    fn what_the_server_refuses_is_located_too() {
        let (_folder, file) = file("name: p\nsteps:\n  - name: a\n    image: i\n    command: [x]\n", &[]);
        let mut error = CliError::bad_input("the pipeline is not valid");
        error.fields = vec![("pipeline.steps[0].image".to_owned(), "is not allowed here".to_owned())];
        let text = file.locate(error).render();
        assert!(text.contains("pipeline.yaml:4:"), "{text}");
        assert!(text.contains("steps[0].image: is not allowed here"), "{text}");
    }
}
