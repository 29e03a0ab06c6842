//! Two proxies that do to connections what networks, kubelets and API servers do to them: at random, from a seed, and not for ever.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::{TcpListener, TcpStream};
use windlass_tests::log_proxy::{self, End, Fate};

/// Of one log so many requests are disturbed, and of one relay's connections.
const DISTURBED: usize = 6;
/// A disturbed log ends before so many bytes.
const MOST_BYTES: usize = 6_000;

/// What is done, and how often it was.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    /// Logs that ended as if they were over.
    pub(crate) clean: AtomicUsize,
    /// Logs whose connection broke.
    pub(crate) dirty: AtomicUsize,
    /// Logs of which nothing came any more.
    pub(crate) stalled: AtomicUsize,
    /// Connections to the relay that broke.
    pub(crate) cut: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    /// How often each thing was asked for.
    asked: HashMap<String, usize>,
}

impl Faults {
    /// Begins anew, with this seed.
    pub(crate) fn begin(&self, seed: u64) {
        *self.state.lock().expect("no panic") = State {
            seed,
            ..State::default()
        };
    }

    /// Random for this thing, asked for once more; none when it was disturbed often enough.
    fn random(&self, what: &str) -> Option<StdRng> {
        let mut state = self.state.lock().expect("no panic");
        let seed = state.seed;
        let asked = state.asked.entry(what.to_owned()).or_default();
        *asked += 1;
        let mut hasher = DefaultHasher::new();
        (seed, what, *asked).hash(&mut hasher);
        (*asked <= DISTURBED).then(|| StdRng::seed_from_u64(hasher.finish()))
    }
}

impl log_proxy::Faults for Faults {
    fn fate(&self, pod: &str) -> Fate {
        let Some(mut random) = self.random(step_of(pod)) else {
            return Fate::Whole;
        };
        let bytes = random.random_range(0..MOST_BYTES);
        match random.random_range(0..20) {
            0..8 => Fate::Bytes(bytes, End::Clean),
            8..15 => Fate::Bytes(bytes, End::Dirty),
            15 => Fate::Bytes(bytes, End::Stalled),
            _ => Fate::Whole,
        }
    }

    fn ended(&self, _: &str, end: End) {
        let count = match end {
            End::Clean | End::CleanOnceMoreComes => &self.clean,
            End::Dirty => &self.dirty,
            End::Stalled => &self.stalled,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The step of a pod: of its name, `RUN-STEP-ATTEMPT-HASH`, only this is the same in every run.
fn step_of(pod: &str) -> &str {
    pod.rsplit('-').nth(2).unwrap_or(pod)
}

/// In front of a relay: connections, each with many streams of clients or executors, break after some time.
pub(crate) async fn relay(to: SocketAddr, faults: Arc<Faults>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let faults = Arc::clone(&faults);
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else {
                    return;
                };
                let life = faults.random("relay").map(|mut random| random.random_range(50..1_500));
                let carried = tokio::io::copy_bidirectional(&mut near, &mut far);
                match life {
                    None => drop(carried.await),
                    Some(millis) => {
                        if tokio::time::timeout(Duration::from_millis(millis), carried)
                            .await
                            .is_err()
                        {
                            faults.cut.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    address
}
