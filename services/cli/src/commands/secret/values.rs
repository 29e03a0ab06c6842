//! Where values come from: files and standard input, never the command line (I8). Errors name places, never content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use windlass_pipeline::is_data_key;

use crate::client::display_path;
use crate::errors::{CliError, Result};
use crate::output;

/// What a Secret takes at most.
const MAX_BYTES: u64 = 1024 * 1024;

/// Values by key.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// What the arguments say.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// The flag of the next, for errors.
    pub(crate) file_flag: &'a str,
    /// `KEY=PATH`.
    pub(crate) files: &'a [String],
    /// Key of what standard input has.
    pub(crate) stdin: Option<&'a str>,
    /// Whether it may have nothing.
    pub(crate) allow_empty: bool,
    /// Files of `KEY=VALUE` lines.
    pub(crate) env_files: &'a [PathBuf],
    /// Names of environment variables of this process, each a key.
    pub(crate) variables: &'a [String],
}

impl Sources<'_> {
    /// Reads everything.
    ///
    /// # Errors
    /// When a source cannot be read or is too large, or a key is named twice.
    pub(crate) fn read(&self) -> Result<Data> {
        let mut data = Data::new();
        for pair in self.files {
            let (key, path) = pair
                .split_once('=')
                .filter(|(_, path)| !path.is_empty())
                .ok_or_else(|| {
                    let flag = self.file_flag;
                    CliError::bad_input(format!("{flag} takes KEY=PATH"))
                        .hint(format!("such as {flag} ca.pem=certs/ca.pem"))
                })?;
            add(&mut data, key.to_owned(), read_file(Path::new(path))?)?;
        }
        for path in self.env_files {
            let content = read_file(path)?;
            let pairs = env_lines(&content).map_err(|line| {
                CliError::bad_input(format!("{}:{line}: is no KEY=VALUE line", display_path(path))).hint(
                    "a key has letters, digits, `-`, `_` and `.`; values of several lines need a file of their own",
                )
            })?;
            for (key, value) in pairs {
                add(&mut data, key, value)?;
            }
        }
        for name in self.variables {
            let value = std::env::var_os(name).ok_or_else(|| {
                CliError::bad_input(format!("the environment has no variable {name:?}"))
                    .hint("it is looked for in the environment of this command; is it exported?")
            })?;
            add(&mut data, name.clone(), value.into_encoded_bytes())?;
        }
        if let Some(key) = self.stdin {
            let value = read_stdin(key)?;
            if value.is_empty() && !self.allow_empty {
                let keep = match self.file_flag {
                    "--from-file" => "--allow-empty keeps an empty value",
                    _ => "an empty file keeps an empty value",
                };
                return Err(CliError::bad_input(format!("standard input has nothing for {key}"))
                    .hint(format!("see why what writes it wrote nothing; {keep}")));
            }
            add(&mut data, key.to_owned(), value)?;
        }
        Ok(data)
    }
}

fn add(data: &mut Data, key: String, value: Vec<u8>) -> Result<()> {
    if !is_data_key(&key) {
        return Err(CliError::bad_input(format!("{key:?} is no key of a secret"))
            .hint("a key has 1 to 253 letters, digits, `-`, `_` and `.`"));
    }
    if data.contains_key(&key) {
        return Err(CliError::bad_input(format!("key {key} is given twice")));
    }
    data.insert(key, value);
    if data.values().map(|value| value.len() as u64).sum::<u64>() > MAX_BYTES {
        return Err(CliError::bad_input(
            "the values are larger than 1 MiB together, which is what a Secret takes",
        ));
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| CliError::bad_input(format!("{} cannot be read: {error}", display_path(path)));
    bounded(File::open(path).map_err(failed)?).map_err(failed)
}

/// The content, or a little more than may be: then it is refused.
fn bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn read_stdin(key: &str) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| CliError::bad_input(format!("standard input cannot be read: {error}"));
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let terminal = console::Term::stderr();
        terminal
            .write_str(&format!("value of {key} (not shown): "))
            .map_err(failed)?;
        return Ok(terminal.read_secure_line().map_err(failed)?.into_bytes());
    }
    let value = bounded(stdin.lock()).map_err(failed)?;
    if value.ends_with(b"\n") {
        output::note(format!(
            "the value of {key} ends with a newline, which is kept; `printf %s` and `head -c -1` make none"
        ));
    }
    Ok(value)
}

/// The pairs of `KEY=VALUE` lines.
///
/// # Errors
/// With the number of a line that is none; what it says may be a value.
fn env_lines(content: &[u8]) -> std::result::Result<Vec<(String, Vec<u8>)>, usize> {
    let mut pairs = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() || line.trim_ascii_start().starts_with(b"#") {
            continue;
        }
        let equals = line.iter().position(|byte| *byte == b'=').ok_or(index + 1)?;
        let key = std::str::from_utf8(line[..equals].trim_ascii()).map_err(|_| index + 1)?;
        if !is_data_key(key) {
            return Err(index + 1);
        }
        pairs.push((key.to_owned(), line[equals + 1..].to_vec()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[String], env_files: &[PathBuf]) -> Result<Data> {
        let sources = Sources {
            file_flag: "--from-file",
            files,
            stdin: None,
            allow_empty: false,
            env_files,
            variables: &[],
        };
        sources.read()
    }

    #[test]
    fn f7_files_are_read_as_they_are_and_empty_ones_are_empty_values() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("written");
            path
        };
        let key = |key: &str, path: &Path| format!("{key}={}", path.display());
        let (binary, empty) = (file("a", b"\xff\n\0"), file("b", b""));
        let env = file("env", b"# comment\n\nUSER=ana\r\nURL=postgres://a?b=c \n EMPTY=\n");
        let data = read(&[key("a", &binary), key("b", &empty)], &[env]).expect("read");
        let expected: [(&str, &[u8]); 5] = [
            ("EMPTY", b""),
            ("URL", b"postgres://a?b=c "),
            ("USER", b"ana"),
            ("a", b"\xff\n\0"),
            ("b", b""),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_vec()));
        assert_eq!(data, BTreeMap::from(expected));

        let twice = read(&[key("a", &binary), key("a", &empty)], &[]).expect_err("twice");
        assert_eq!(twice.message, "key a is given twice");
        let large = file("large", &vec![b'x'; 1024 * 1024 + 1]);
        let large = read(&[key("a", &large)], &[]).expect_err("too large");
        assert!(large.message.contains("1 MiB"), "{large}");
        assert!(read(&[key("a", Path::new("/dev/zero"))], &[]).is_err(), "it has no end");
    }

    #[test]
    fn a_variable_of_the_environment_is_a_value_and_one_that_is_not_there_is_told() {
        let of = |name: &str| {
            let sources = Sources {
                file_flag: "--secret-file",
                files: &["no pair".to_owned()][..0],
                stdin: None,
                allow_empty: false,
                env_files: &[],
                variables: &[name.to_owned()],
            };
            sources.read()
        };
        // Cargo sets it for tests.
        let data = of("CARGO_PKG_NAME").expect("it is set");
        assert_eq!(data["CARGO_PKG_NAME"], env!("CARGO_PKG_NAME").as_bytes());
        let error = of("WINDLASS_NO_SUCH_VARIABLE").expect_err("it is not set").render();
        assert!(error.contains("no variable \"WINDLASS_NO_SUCH_VARIABLE\""), "{error}");
    }

    #[test]
    fn i8_what_is_wrong_with_an_env_file_is_told_by_its_line_and_not_by_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        for wrong in ["A=1\nhunter2\n", "A=1\nhunter 2=x\n", "A=1\n=hunter2\n"] {
            let path = folder.path().join("env");
            std::fs::write(&path, wrong).expect("written");
            let error = read(&[], &[path]).expect_err("no pair").render();
            assert!(error.contains("env:2:") && !error.contains("hunter"), "{error}");
        }
        let error = read(&["hunter2".to_owned()], &[]).expect_err("no pair").render();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
