//! What the machine can do: append and fdatasync.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Records of 100 bytes that are appended and synced in groups, by second.
pub(crate) fn appended_per_second(folder: &std::path::Path, group: usize) -> f64 {
    let mut file = File::create(folder.join("probe")).expect("a file");
    let bytes = vec![7_u8; group * 100];
    let (begun, mut records) = (Instant::now(), 0_usize);
    while begun.elapsed() < Duration::from_millis(500) {
        file.write_all(&bytes).expect("written");
        file.sync_data().expect("synced");
        records += group;
    }
    records as f64 / begun.elapsed().as_secs_f64()
}
