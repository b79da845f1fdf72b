//! The compressed payload of chunk 0x10: zlib, gzip and raw deflate to octets, and octets to zlib.
//!
//! The specification says gzip or inflate; what is on the wire is zlib. All three are read. Octets behind the end of the
//! compressed stream are not part of it, as in the collectors behind us.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use flate2::bufread::GzDecoder;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{CHUNK_BODY_OCTETS_MAX, Payload};

/// How a gzip stream begins.
pub(super) const MAGIC_GZIP: [u8; 2] = [0x1f, 0x8b];
/// Octets by which the output grows: a SIP message in one step.
const STEP_OCTETS: usize = 4_096;

/// What a compressed payload may become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InflateLimits {
    /// Octets.
    pub octets_max: usize,
    /// Octets for each octet that came. Deflate itself ends at about 1030.
    pub ratio_max: usize,
}

impl Default for InflateLimits {
    /// As much as a payload that is not compressed can have, so that a filter meets no other sizes than it would have
    /// met anyway and can set what it read; and a ratio that text does not reach (SIP: 2 to 10, a log that repeats
    /// itself: 100), so that a datagram of a few octets does not become 64 KiB.
    fn default() -> Self {
        Self { octets_max: CHUNK_BODY_OCTETS_MAX, ratio_max: 256 }
    }
}

/// Why a compressed payload cannot be read. The packet is carried as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InflateError {
    /// Neither zlib nor gzip nor raw deflate, or not whole, or with a wrong checksum.
    #[error("{octets} octets that are not whole zlib, gzip or raw deflate")]
    Unreadable {
        /// Octets that came.
        octets: usize,
    },
    /// More than [`InflateLimits::octets_max`].
    #[error("{octets} compressed octets become more than {octets_max}")]
    TooLong {
        /// Octets that came.
        octets: usize,
        /// The limit.
        octets_max: usize,
    },
    /// More than [`InflateLimits::ratio_max`] for each octet that came.
    #[error("{octets} compressed octets become more than {ratio_max} times as many")]
    Ratio {
        /// Octets that came.
        octets: usize,
        /// The limit.
        ratio_max: usize,
    },
}

/// What a packet's compressed payload becomes, within the default [`InflateLimits`]: found out when somebody first asks,
/// and once for all clones of the packet. Nothing for a packet whose payload is not compressed.
#[derive(Clone, Debug)]
pub(super) struct Inflated(Option<Arc<Found>>);

type Found = OnceLock<Result<Vec<u8>, InflateError>>;

impl Inflated {
    pub(super) fn of(payload: Payload) -> Self {
        Self(matches!(payload, Payload::Compressed(_)).then(Arc::default))
    }

    /// `payload` is that of the packet, as it came.
    pub(super) fn get(&self, payload: &[u8]) -> Option<Result<&[u8], InflateError>> {
        let inflated = self.0.as_ref()?.get_or_init(|| inflate(payload, InflateLimits::default()));
        Some(inflated.as_deref().map_err(|error| *error))
    }
}

/// The octets that a compressed payload stands for. The work is linear in the octets given and the limit.
///
/// # Errors
/// [`InflateError`].
pub fn inflate(compressed: &[u8], limits: InflateLimits) -> Result<Vec<u8>, InflateError> {
    let octets = compressed.len();
    let by_ratio = octets.saturating_mul(limits.ratio_max);
    let most = limits.octets_max.min(by_ratio);
    let inflated = match compressed {
        [first, second, ..] if [*first, *second] == MAGIC_GZIP => gunzip(compressed, most),
        [first, second, ..] if is_zlib(*first, *second) => {
            // Raw deflate may begin so too, with a stored block; then it is not zlib behind these two octets.
            run(compressed, true, most).or_else(|failed| match failed {
                Failed::Unreadable => run(compressed, false, most),
                Failed::TooLong => Err(Failed::TooLong),
            })
        }
        _ => run(compressed, false, most),
    };
    inflated.map_err(|failed| match failed {
        Failed::Unreadable => InflateError::Unreadable { octets },
        Failed::TooLong if by_ratio < limits.octets_max => InflateError::Ratio { octets, ratio_max: limits.ratio_max },
        Failed::TooLong => InflateError::TooLong { octets, octets_max: limits.octets_max },
    })
}

/// The payload in zlib, as it stands in chunk 0x10. `None` if that cannot be done, which no payload has shown yet.
#[must_use]
pub fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
    let mut compress = Compress::new(Compression::default(), true);
    let mut deflated = Vec::with_capacity(payload.len() / 2 + 64);
    // Stored octets are the worst case: each round has room for all that is left and its block headers.
    for _ in 0..ROUNDS_MAX {
        let rest = payload.get(taken(compress.total_in())..).unwrap_or_default();
        match compress.compress_vec(rest, &mut deflated, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => return Some(deflated),
            Ok(_) => deflated.reserve(rest.len() + STEP_OCTETS),
            Err(_) => return None,
        }
    }
    None
}

/// Rounds of [`deflate`]; it needs two, or three if nothing can be compressed.
const ROUNDS_MAX: usize = 64;

enum Failed {
    Unreadable,
    TooLong,
}

/// Deflate with a window of at most 32 KiB, and a check value that is right.
const fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

/// zlib, or raw deflate.
fn run(compressed: &[u8], is_zlib: bool, most: usize) -> Result<Vec<u8>, Failed> {
    let mut decompress = Decompress::new(is_zlib);
    let mut inflated = Vec::new();
    loop {
        // One more than may be there, so that a payload of just that length is told from a longer one.
        let room = most.saturating_add(1).saturating_sub(inflated.len()).min(STEP_OCTETS);
        inflated.reserve_exact(room);
        let rest = compressed.get(taken(decompress.total_in())..).unwrap_or_default();
        let before = (decompress.total_in(), inflated.len());
        let status = decompress.decompress_vec(rest, &mut inflated, FlushDecompress::None);
        if inflated.len() > most {
            return Err(Failed::TooLong);
        }
        match status {
            Ok(Status::StreamEnd) => return Ok(inflated),
            // Every other round takes or gives octets, so the loop ends.
            Ok(_) if (decompress.total_in(), inflated.len()) != before => {}
            Ok(_) | Err(_) => return Err(Failed::Unreadable),
        }
    }
}

fn gunzip(compressed: &[u8], most: usize) -> Result<Vec<u8>, Failed> {
    let mut inflated = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = GzDecoder::new(compressed).take(limit).read_to_end(&mut inflated);
    if inflated.len() > most {
        return Err(Failed::TooLong);
    }
    read.map_or(Err(Failed::Unreadable), |_| Ok(inflated))
}

fn taken(total_in: u64) -> usize {
    usize::try_from(total_in).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LAX: InflateLimits = InflateLimits { octets_max: 1 << 20, ratio_max: 2_000 };

    fn invite() -> Vec<u8> {
        b"INVITE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\n\r\n".repeat(8)
    }

    fn zlib(octets: &[u8]) -> Vec<u8> {
        deflate(octets).unwrap()
    }

    fn gzip(octets: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(octets).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(octets: &[u8], level: Compression) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
        encoder.write_all(octets).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn zlib_gzip_and_raw_deflate_are_read() {
        let payload = invite();
        assert_eq!(zlib(&payload)[..2], [0x78, 0x9c]);
        for compressed in [zlib(&payload), gzip(&payload), raw(&payload, Compression::fast())] {
            assert_eq!(inflate(&compressed, LAX).as_deref(), Ok(&payload[..]), "{:02x?}", &compressed[..2]);
        }
    }

    #[test]
    fn raw_deflate_that_looks_like_zlib_is_read() {
        // A stored block of 0x1d bits that no decoder looks at: 78, then a length whose low octet is 9c.
        let payload = vec![b'x'; 0x9c];
        let mut compressed = vec![0x78, 0x9c, 0, 0x63, 0xff];
        compressed.extend_from_slice(&payload);
        // The last block, with nothing in it.
        compressed.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
        assert_eq!(inflate(&compressed, LAX), Ok(payload));
    }

    #[test]
    fn an_empty_payload_may_be_compressed_too() {
        for compressed in [zlib(b""), gzip(b""), raw(b"", Compression::fast())] {
            assert_eq!(inflate(&compressed, LAX).as_deref(), Ok(&b""[..]));
        }
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        let payload = invite();
        for compressed in [zlib(&payload), gzip(&payload), raw(&payload, Compression::fast())] {
            for octets in 0..compressed.len() {
                assert_eq!(inflate(&compressed[..octets], LAX), Err(InflateError::Unreadable { octets }));
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        for mut compressed in [zlib(b"payload"), gzip(b"payload")] {
            let octets = compressed.len();
            compressed[octets - 5] ^= 1;
            compressed[octets - 1] ^= 1;
            assert_eq!(inflate(&compressed, LAX), Err(InflateError::Unreadable { octets }));
        }
    }

    #[test]
    fn octets_behind_the_stream_are_not_part_of_it() {
        for mut compressed in [zlib(b"payload"), gzip(b"payload"), raw(b"payload", Compression::fast())] {
            compressed.extend_from_slice(b"\0\0more");
            assert_eq!(inflate(&compressed, LAX).as_deref(), Ok(&b"payload"[..]));
        }
    }

    #[test]
    fn a_payload_may_become_as_long_as_it_may_and_no_longer() {
        let payload = vec![b'x'; 10_000];
        for compressed in [zlib(&payload), gzip(&payload), raw(&payload, Compression::fast())] {
            let octets = compressed.len();
            let limits = |octets_max| InflateLimits { octets_max, ..LAX };
            assert_eq!(inflate(&compressed, limits(10_000)).as_deref(), Ok(&payload[..]));
            let refused = Err(InflateError::TooLong { octets, octets_max: 9_999 });
            assert_eq!(inflate(&compressed, limits(9_999)), refused);
        }
    }

    #[test]
    fn a_payload_may_grow_by_its_ratio_and_no_more() {
        let compressed = zlib(&vec![b'x'; 10_000]);
        let octets = compressed.len();
        let grown = |payload: usize, ratio_max| {
            let compressed = zlib(&vec![b'x'; payload]);
            inflate(&compressed, InflateLimits { octets_max: 1 << 20, ratio_max }).map(|inflated| inflated.len())
        };
        let ratio = 10_000_usize.div_ceil(octets);
        assert_eq!(grown(10_000, ratio), Ok(10_000));
        assert_eq!(grown(10_000, ratio - 1), Err(InflateError::Ratio { octets, ratio_max: ratio - 1 }));
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        // 64 MiB in 65 KiB: what inflates never exceeds the limit by more than one octet, which is refused.
        let bomb = zlib(&vec![0; 64 << 20]);
        assert!(bomb.len() < 70_000);
        let limits = InflateLimits { ratio_max: 2_000, ..InflateLimits::default() };
        let refused = InflateError::TooLong { octets: bomb.len(), octets_max: 65_529 };
        assert_eq!(inflate(&bomb, limits), Err(refused));
    }

    #[test]
    fn what_cannot_be_compressed_comes_back_too() {
        let mut state = 1_u32;
        let noise: Vec<u8> = (0..65_529)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        let compressed = zlib(&noise);
        assert!(compressed.len() > noise.len());
        assert_eq!(inflate(&compressed, InflateLimits::default()), Ok(noise));
    }
}
