//! What `inflate` and `deflate` promise.

use hepgate::wire::{InflateError, InflateLimits, deflate, inflate};

use super::dice::Dice;

/// Bounds that no payload here reaches: deflate ends at about 1030.
const LAX: InflateLimits = InflateLimits { octets_max: usize::MAX, ratio_max: 2_000 };

/// Whatever is inflated keeps to its bounds, and is refused with true figures; a bound is kept to the octet; what was
/// deflated comes back.
pub(crate) fn inflating(octets: &[u8]) {
    let mut dice = Dice::new(octets);
    let drawn = InflateLimits { octets_max: usize::from(dice.u16()), ratio_max: 1 + usize::from(dice.u8()) };
    for limits in [drawn, InflateLimits::default()] {
        keeps_to(octets, limits);
    }
    let deflated = deflate(octets).unwrap();
    assert_eq!(inflate(&deflated, LAX).as_deref(), Ok(octets));
    keeps_to(&deflated, drawn);
    let just = InflateLimits { octets_max: octets.len(), ..LAX };
    assert_eq!(inflate(&deflated, just).as_deref(), Ok(octets));
    if let Some(octets_max) = octets.len().checked_sub(1) {
        let refused = InflateError::TooLong { octets: deflated.len(), octets_max };
        assert_eq!(inflate(&deflated, InflateLimits { octets_max, ..LAX }), Err(refused));
    }
}

fn keeps_to(compressed: &[u8], limits: InflateLimits) {
    let InflateLimits { octets_max, ratio_max } = limits;
    let octets = compressed.len();
    match inflate(compressed, limits) {
        Ok(inflated) => assert!(inflated.len() <= octets_max && inflated.len() <= octets * ratio_max),
        Err(InflateError::Unreadable { octets: said }) => assert_eq!(said, octets),
        Err(InflateError::TooLong { octets: said, octets_max: bound }) => {
            assert_eq!((said, bound), (octets, octets_max));
            assert!(octets_max <= octets * ratio_max);
        }
        Err(InflateError::Ratio { octets: said, ratio_max: bound }) => {
            assert_eq!((said, bound), (octets, ratio_max));
            assert!(octets * ratio_max < octets_max);
        }
    }
}
