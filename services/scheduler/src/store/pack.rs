//! Compression of stored values.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Result};

use zstd::bulk::{Compressor, Decompressor};

/// Below this, packing costs more than it saves.
const PACK_FROM: usize = 512;

const LEVEL: i32 = 1;

thread_local! {
    // Making a context costs several times what it costs to pack a small definition with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The packed form, when it is worth it. What [`unpack`] would refuse for its size is never packed.
pub(crate) fn pack(plain: &[u8], limit: usize) -> Option<Vec<u8>> {
    if plain.len() < PACK_FROM || plain.len() > limit {
        return None;
    }
    let packed = COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => compressor.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(plain)
    });
    packed.ok().filter(|packed| packed.len() < plain.len())
}

/// The plain form of what [`pack`] made, at most `limit` bytes.
pub(crate) fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>> {
    let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let size = size.and_then(|size| usize::try_from(size).ok());
    let Some(size) = size.filter(|size| *size <= limit) else {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "no plausible size in a packed value",
        ));
    };
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            None => decompressor.insert(Decompressor::new()?),
        };
        decompressor.decompress(packed, size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_within_its_limit() {
        let plain = b"name: churn\n".repeat(500);
        let packed = pack(&plain, plain.len()).expect("worth it");
        assert!(packed.len() < plain.len() / 10);
        assert_eq!(unpack(&packed, plain.len()).expect("unpacks"), plain);
        assert!(unpack(&packed, plain.len() - 1).is_err());
        assert!(unpack(&packed[..packed.len() - 3], plain.len()).is_err());
        assert!(unpack(b"no frame", 100).is_err());
        assert_eq!(pack(b"short", 100), None);
        assert_eq!(pack(&plain, plain.len() - 1), None);
    }
}
