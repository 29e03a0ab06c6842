//! The `windlass` binary.

fn main() -> std::process::ExitCode {
    windlass_cli::main()
}
