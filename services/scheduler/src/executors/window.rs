//! Numbered messages that the peer has not acknowledged, kept so that a stream can resume.

use std::collections::VecDeque;

/// Bounds of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    /// Most messages.
    pub(crate) messages: usize,
    /// Most bytes.
    pub(crate) bytes: usize,
}

/// Messages sent and not acknowledged, oldest first; see the module.
#[derive(Debug)]
pub(crate) struct Window<M> {
    limits: WindowLimits,
    /// Sequence of the newest message that was sent.
    sent: u64,
    kept: VecDeque<(u64, usize, M)>,
    bytes: usize,
    /// The newest message that is neither kept nor acknowledged; below it nothing can be resumed.
    lost: u64,
    acknowledged: u64,
}

impl<M: Clone> Window<M> {
    pub(crate) fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            sent: 0,
            kept: VecDeque::new(),
            bytes: 0,
            lost: 0,
            acknowledged: 0,
        }
    }

    /// The number for the next message.
    pub(crate) fn next(&self) -> u64 {
        self.sent + 1
    }

    /// Keeps a message of `bytes` bytes that is being sent under [`Self::next`]; the oldest go when there is no room (I11).
    pub(crate) fn push(&mut self, bytes: usize, message: M) {
        self.sent += 1;
        self.kept.push_back((self.sent, bytes, message));
        self.bytes += bytes;
        while self.kept.len() > self.limits.messages || self.bytes > self.limits.bytes {
            let Some((sequence, bytes, _)) = self.kept.pop_front() else {
                return;
            };
            self.bytes -= bytes;
            self.lost = sequence;
        }
    }

    /// Forgets what the peer took over.
    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        self.acknowledged = self.acknowledged.max(sequence.min(self.sent));
        while let Some((first, bytes, _)) = self.kept.front() {
            if *first > sequence {
                return;
            }
            self.bytes -= bytes;
            self.kept.pop_front();
        }
    }

    /// What the peer has to be sent again when `sequence` is the last that it took over; `None` when that is kept no longer.
    pub(crate) fn resume_after(&mut self, sequence: u64) -> Option<Vec<M>> {
        if sequence < self.lost.max(self.acknowledged) || sequence > self.sent {
            return None;
        }
        self.acknowledge(sequence);
        Some(self.kept.iter().map(|(_, _, message)| message.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WindowLimits = WindowLimits {
        messages: 3,
        bytes: 100,
    };

    fn window(messages: u64) -> Window<u64> {
        let mut window = Window::new(LIMITS);
        for _ in 0..messages {
            window.push(10, window.next());
        }
        window
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again() {
        let mut window = window(3);
        window.acknowledge(1);
        assert_eq!(window.resume_after(2), Some(vec![3]));
        assert_eq!(window.resume_after(3), Some(vec![]));
        assert_eq!(window.next(), 4);
    }

    #[test]
    fn i11_a_window_is_bounded_and_then_cannot_be_resumed() {
        let mut window = window(5);
        assert_eq!(window.kept.len(), 3);
        assert_eq!(window.resume_after(1), None);
        assert_eq!(window.resume_after(2), Some(vec![3, 4, 5]));

        window.push(500, 6);
        assert_eq!(window.kept.len(), 0, "one message above the bound on bytes is not kept");
        assert_eq!(window.resume_after(5), None);
        assert_eq!(window.resume_after(6), Some(vec![]));
    }

    #[test]
    fn a_number_that_was_never_sent_cannot_be_resumed() {
        assert_eq!(window(2).resume_after(9), None);
    }
}
