//! Messages of a watch as bytes: an event is encoded once for all watchers of its run.

use bytes::Bytes;
use prost::Message as _;
use windlass_api::run::v1 as wire;
use windlass_api::run::v1::watch_run_response::Message;
use windlass_ids::RunId;

/// A message of a watch.
pub(crate) fn frame(message: Message) -> Bytes {
    wire::WatchRunResponse { message: Some(message) }.encode_to_vec().into()
}

/// An event of a run, with the token that goes on after it.
pub(crate) fn event_frame(run: RunId, event: wire::RunEvent) -> Bytes {
    let resume_token = resume_token(run, event.sequence);
    frame(Message::Event(wire::WatchEvent {
        event: Some(event),
        resume_token,
    }))
}

/// A token: the run and the sequence number of the last event that was seen.
pub(crate) fn resume_token(run: RunId, sequence: u64) -> String {
    hex::encode([&run.as_bytes()[..], &sequence.to_be_bytes()].concat())
}

/// The sequence number in a token; `None` when it is not one of this run.
pub(crate) fn resume_sequence(token: &str, run: RunId) -> Option<u64> {
    let bytes = hex::decode(token).ok()?;
    let (of, sequence) = bytes.split_at_checked(16)?;
    (of == run.as_bytes()).then_some(u64::from_be_bytes(sequence.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_run() {
        let run = RunId::from_bytes([7; 16]);
        assert_eq!(resume_sequence(&resume_token(run, 42), run), Some(42));
        assert_eq!(
            resume_sequence(&resume_token(run, 42), RunId::from_bytes([8; 16])),
            None
        );
        assert_eq!(resume_sequence("7", run), None);
        assert_eq!(resume_sequence("", run), None);
    }
}
