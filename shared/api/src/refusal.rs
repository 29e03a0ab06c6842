//! Statuses that fit into the headers in which they travel, whatever a client sent (I11).
//!
//! A status is a header of text and a header of details, which hold the text once more, in base64. Common clients refuse headers
//! above 8 KiB together, and then the user sees neither.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Most bytes of a status' text as it travels, where everything but printable ASCII takes three.
const MAX_TEXT: usize = 1_200;
/// Most bytes of all problems of fields.
const MAX_PROBLEMS: usize = 2_800;
/// Most bytes of one path, and of what is said about it.
const MAX_PATH: usize = 200;
const MAX_DESCRIPTION: usize = 500;
/// Most bytes of other texts in details, such as the name of a run.
pub const MAX_METADATA: usize = 200;
/// What one problem takes besides its texts.
const OVERHEAD: usize = 16;

/// A status whose text is cut to what fits.
pub fn status(code: Code, text: &str, details: ErrorDetails) -> Status {
    Status::with_error_details(code, shorten_by(text, MAX_TEXT, header_bytes), details)
}

/// Adds as many problems of fields as fit, each a path and what is wrong there, and how many `all` are more.
pub fn add_problems(details: &mut ErrorDetails, problems: impl Iterator<Item = (String, String)>, all: usize) {
    let mut room = MAX_PROBLEMS;
    for (shown, (path, description)) in problems.enumerate() {
        let (path, description) = (shorten(&path, MAX_PATH), shorten(&description, MAX_DESCRIPTION));
        let size = path.len() + description.len() + OVERHEAD;
        if size > room {
            details.add_bad_request_violation("", format!("and {} more", all.saturating_sub(shown)));
            return;
        }
        room -= size;
        details.add_bad_request_violation(path, description);
    }
}

/// `text` with at most `most` bytes; what is cut is marked.
pub fn shorten(text: &str, most: usize) -> String {
    shorten_by(text, most, char::len_utf8)
}

fn shorten_by(text: &str, most: usize, bytes: impl Fn(char) -> usize) -> String {
    const MARK: char = '…';
    let (mut size, mut kept) = (0, 0);
    for (position, character) in text.char_indices() {
        size += bytes(character);
        if size > most {
            return format!("{}{MARK}", &text[..kept]);
        }
        if size + bytes(MARK) <= most {
            kept = position + character.len_utf8();
        }
    }
    text.to_owned()
}

fn header_bytes(character: char) -> usize {
    match character {
        '%' => 3,
        ' '..='~' => 1,
        other => 3 * other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_stays_as_it_is_and_a_long_one_is_cut_between_characters() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("longer", 5), "lo…");
        assert_eq!(shorten("äöü", 5), "ä…");
        assert_eq!(shorten("äöü", 6), "äöü");
        assert_eq!(shorten_by("ab\n%cdefghij", 14, header_bytes), "ab\n…");
    }

    #[test]
    fn i11_a_status_fits_into_headers_whatever_it_says() {
        for text in ["x", "ü", "\n", "%"] {
            let long = text.repeat(1 << 20);
            let mut details = ErrorDetails::with_error_info("REASON", "windlass", std::collections::HashMap::new());
            let problems = (0..1000).map(|index| (format!("{index}{long}"), long.clone()));
            add_problems(&mut details, problems, 1000);
            let status = status(Code::InvalidArgument, &long, details);
            let fields = status.get_details_bad_request().expect("fields").field_violations;
            assert!(fields.len() >= 4, "{}", fields.len());
            assert_eq!(
                fields.last().expect("one").description,
                format!("and {} more", 1001 - fields.len())
            );
            let message: usize = status.message().chars().map(header_bytes).sum();
            let headers = message + status.details().len().div_ceil(3) * 4;
            assert!(headers < 8_000, "{headers}");
        }
    }
}
