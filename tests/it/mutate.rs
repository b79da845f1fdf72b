//! Ways in which octets go wrong.

use crate::laws::dice::Dice;

/// Numbers that lengths, widths and families go wrong at.
const TELLING: [u16; 14] = [0, 1, 2, 5, 6, 7, 10, 11, 16, 0x0f0f, 0x1f8b, 0x7fff, 0xfffe, 0xffff];

/// The octets with up to four things done to them; `other` gives parts to put in.
pub(crate) fn mutate(mut octets: Vec<u8>, other: &[u8], dice: &mut Dice<'_>) -> Vec<u8> {
    for _ in 0..=dice.below(4) {
        mutate_once(&mut octets, other, dice);
    }
    octets
}

fn mutate_once(octets: &mut Vec<u8>, other: &[u8], dice: &mut Dice<'_>) {
    let length = octets.len();
    let at = dice.below(length);
    let chunks = chunk_offsets(octets);
    let chunk = dice.pick(&chunks).unwrap_or_else(|| (at, length.min(at + 6)));
    match dice.u8() % 12 {
        0 => put(octets, at, &[dice.u8()]),
        1 => put(octets, at, &dice.pick(&TELLING).unwrap_or(0).to_be_bytes()),
        // The stated length, or a chunk's vendor, type or length.
        2 => put(octets, 4, &any_number(dice, length).to_be_bytes()),
        3 => put(octets, chunk.0, &(dice.u16() % 9).to_be_bytes()),
        4 => put(octets, chunk.0 + 2, &(dice.u16() % 0x30).to_be_bytes()),
        5 => put(octets, chunk.0 + 4, &any_number(dice, chunk.1 - chunk.0).to_be_bytes()),
        6 => octets.truncate(at),
        7 => octets.extend_from_slice(&other[..dice.below(other.len() + 1)]),
        8 => octets.splice(at..at, other.get(..dice.below(20)).unwrap_or_default().iter().copied()).for_each(drop),
        // A chunk twice, a chunk gone, another packet's chunk: whole again afterwards.
        9 => {
            let twice = octets[chunk.0..chunk.1].to_vec();
            octets.splice(chunk.0..chunk.0, twice).for_each(drop);
            restate(octets);
        }
        10 => {
            octets.splice(chunk.0..chunk.1, []).for_each(drop);
            restate(octets);
        }
        _ => {
            if let Some((start, end)) = dice.pick(&chunk_offsets(other)) {
                octets.splice(chunk.1..chunk.1, other[start..end].iter().copied()).for_each(drop);
            }
            restate(octets);
        }
    }
}

/// A number that is telling, or nearly the right one.
fn any_number(dice: &mut Dice<'_>, right: usize) -> u16 {
    let right = u16::try_from(right).unwrap_or(u16::MAX);
    match dice.u8() % 3 {
        0 => right.wrapping_add(u16::from(dice.u8() % 8)),
        1 => right.wrapping_sub(u16::from(dice.u8() % 8)),
        _ => dice.pick(&TELLING).unwrap_or(0),
    }
}

/// Overwrites what is there of these octets.
fn put(octets: &mut [u8], at: usize, with: &[u8]) {
    for (to, from) in octets.iter_mut().skip(at).zip(with) {
        *to = *from;
    }
}

fn restate(octets: &mut [u8]) {
    if let Ok(stated) = u16::try_from(octets.len()) {
        put(octets, 4, &stated.to_be_bytes());
    }
}

/// Where chunks begin and end, as far as they can be read.
fn chunk_offsets(octets: &[u8]) -> Vec<(usize, usize)> {
    let mut offsets = Vec::new();
    let mut at = 6;
    while let Some(&[_, _, _, _, l0, l1]) = octets.get(at..).and_then(|rest| rest.first_chunk::<6>()) {
        let end = at + usize::from(u16::from_be_bytes([l0, l1]));
        if end < at + 6 || end > octets.len() {
            break;
        }
        offsets.push((at, end));
        at = end;
    }
    offsets
}
