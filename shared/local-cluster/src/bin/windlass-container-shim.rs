//! Runs one container of a local cluster; see `windlass_local_cluster::shim_main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_local_cluster::shim_main(std::env::args_os().skip(1))
}
