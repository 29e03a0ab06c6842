//! Long work of requests: off the threads that serve connections, and only so much of it at a time (I11).

use std::sync::Arc;

use tokio::sync::Semaphore;
use windlass_api::pipeline::v1::Pipeline;

/// Most small and most large pieces of work at a time. Large ones have few, since each may take the memory of the largest submission
/// many times over; small ones never wait for them.
const SMALL: usize = 8;
const LARGE: usize = 2;
/// A pipeline of at most this many bytes and steps is small.
const SMALL_BYTES: usize = 64 * 1024;
const SMALL_STEPS: usize = 2_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lanes {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL)),
            large: Arc::new(Semaphore::new(LARGE)),
        }
    }
}

/// How much work a pipeline makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

impl Size {
    /// By its bytes and by the steps that it expands to.
    pub(crate) fn of(pipeline: &Pipeline) -> Self {
        let instances = pipeline.steps.iter().map(|step| {
            let values = step.matrix.iter().map(|axis| axis.values.len().max(1));
            values.fold(1, usize::saturating_mul)
        });
        let steps = instances.fold(0, usize::saturating_add);
        Self::by(steps, prost::Message::encoded_len(pipeline))
    }

    /// By the number of steps and the bytes of their pipeline.
    pub(crate) fn by(steps: usize, bytes: usize) -> Self {
        if steps <= SMALL_STEPS && bytes <= SMALL_BYTES {
            Self::Small
        } else {
            Self::Large
        }
    }
}

/// The work panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Lanes {
    /// Carries work out when its lane has room. It goes on when nobody waits for it any more, and keeps its room until its end.
    ///
    /// # Errors
    /// When the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        size: Size,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Broken> {
        let lane = match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        };
        let room = Arc::clone(lane).acquire_owned().await.map_err(|_| Broken)?;
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(room);
            done
        });
        working.await.map_err(|_| Broken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use windlass_api::pipeline::v1::{MatrixAxis, Step};

    use super::*;

    fn matrix(values: usize) -> Pipeline {
        let axis = MatrixAxis {
            values: vec![prost_types::Value { kind: None }; values],
            ..MatrixAxis::default()
        };
        Pipeline {
            steps: vec![Step {
                matrix: vec![axis.clone(), axis],
                ..Step::default()
            }],
            ..Pipeline::default()
        }
    }

    #[test]
    fn a_few_bytes_that_expand_to_many_steps_are_large() {
        assert_eq!(Size::of(&matrix(10)), Size::Small);
        assert_eq!(Size::of(&matrix(100)), Size::Large);
        let mut written = matrix(1);
        written.name = "a".repeat(SMALL_BYTES);
        assert_eq!(Size::of(&written), Size::Large);
    }

    #[tokio::test]
    async fn i11_large_work_has_a_bound_and_small_work_does_not_wait_for_it() {
        let lanes = Arc::new(Lanes::default());
        let running = Arc::new(AtomicUsize::new(0));
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let mut releases = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..LARGE + 1 {
            let (release, released) = mpsc::channel::<()>();
            releases.push(release);
            let (lanes, running, started) = (Arc::clone(&lanes), Arc::clone(&running), started.clone());
            tasks.push(tokio::spawn(async move {
                let work = move || {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    started.send(now).ok();
                    released.recv().ok();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                lanes.run(Size::Large, work).await
            }));
        }
        for _ in 0..LARGE {
            starts.recv().await.expect("started");
        }
        assert_eq!(lanes.run(Size::Small, || 7).await, Ok(7));
        assert!(starts.try_recv().is_err(), "one waits");
        drop(releases);
        for task in tasks {
            task.await.expect("no panic").expect("done");
        }
        assert!(starts.recv().await.expect("the last one") <= LARGE);
        assert_eq!(
            lanes.run(Size::Small, || panic!("on purpose")).await,
            Err::<(), _>(Broken)
        );
    }
}
