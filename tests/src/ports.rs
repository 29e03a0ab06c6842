//! Ports of services that tests start, kill and start again at the same address.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use windlass_service::{Lock, LockFile};

/// Below those that the kernel gives to outgoing connections (32768 on Linux, unless configured): else one of these may sit on the port
/// while its service is being started again.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port of 127.0.0.1 that no other test takes while this lives, in whatever process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: LockFile,
}

impl Port {
    /// Takes a port that is free.
    ///
    /// # Panics
    /// When none is.
    pub fn take() -> Self {
        let folder = locks();
        let length = u32::from(PORTS.end - PORTS.start);
        let first = rand::random_range(0..length);
        let numbers = (0..length).map(|step| PORTS.start + u16::try_from((first + step) % length).expect("in range"));
        for number in numbers {
            let lock = LockFile::acquire(&folder.join(number.to_string())).expect("a lock file");
            if let Lock::Ours(lock) = lock
                && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
            {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port of {PORTS:?} is free");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn locks() -> PathBuf {
    let folder = std::env::temp_dir().join("windlass-test-ports");
    std::fs::create_dir_all(&folder).expect("a folder for locks");
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_have_the_same_port() {
        let ports: Vec<Port> = (0..50).map(|_| Port::take()).collect();
        let numbers: std::collections::BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        let number = ports[0].number();
        assert!(matches!(
            LockFile::acquire(&locks().join(number.to_string())),
            Ok(Lock::Elsewhere(_))
        ));
    }
}
