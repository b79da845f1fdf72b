//! What calls are found by: Call-IDs, wherever they stand.
//!
//! A Call-ID is a word: what stands between white space. So it is the same octets in a header, in the correlation id
//! that an agent has made of it, and in JSON; and the same octets become the same pseudonym.

use std::ops::Range;

use crate::headers::is_in;
use crate::hide::Hider;
use crate::uri;

/// Headers whose values are Call-IDs, one or several. `Session-ID` is none by its name, and is one by its use.
const LISTS: [&[u8]; 9] = [
    b"call-id",
    b"i",
    b"x-call-id",
    b"x-callid",
    b"x-cid",
    b"x-correlation-id",
    b"x-session-id",
    b"x-original-call-id",
    b"p-call-id",
];
/// Headers in which a Call-ID has parameters behind it.
const WITH_PARAMETERS: [&[u8]; 4] = [b"replaces", b"join", b"target-dialog", b"session-id"];
/// Parameters there whose values stay: tags, as they do in From and To.
const TAGS: [&[u8]; 5] = [b"to-tag", b"from-tag", b"local-tag", b"remote-tag", b"early-only"];

/// How the Call-IDs of a header stand in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Words.
    Words,
    /// Words with commas between them.
    Commas,
    /// One, and parameters behind it.
    Parameters,
}

impl Form {
    /// `None`: the header holds none.
    pub fn of_header(name: &[u8]) -> Option<Self> {
        if is_in(&LISTS, name) {
            Some(Self::Words)
        } else if is_in(&WITH_PARAMETERS, name) {
            Some(Self::Parameters)
        } else {
            name.eq_ignore_ascii_case(b"in-reply-to").then_some(Self::Commas)
        }
    }
}

/// Hides every Call-ID of a header's value.
pub fn hide_in_header(octets: &mut [u8], value: Range<usize>, form: Form, hider: &Hider) {
    match form {
        Form::Words => hide_words(octets, value, hider),
        Form::Commas => each(octets, value, |octet| octet == b',', |octets, run| hide_words(octets, run, hider)),
        Form::Parameters => {
            let is_id = value.start;
            each(
                octets,
                value,
                |octet| octet == b';',
                |octets, run| {
                    if run.start == is_id { hide_words(octets, run, hider) } else { hide_parameter(octets, run, hider) }
                },
            );
        }
    }
}

/// Hides every word.
pub fn hide_words(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let is_between = |octet: u8| octet.is_ascii_whitespace() || octet == b'\0';
    each(octets, run, is_between, |octets, word| hider.call_id(octets, word));
}

/// A parameter behind a Call-ID: tags stay; `remote` (RFC 7989) is another id; what else there is, nobody vouches for.
fn hide_parameter(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let parameter = octets.get(run.clone()).unwrap_or_default();
    let equals = parameter.iter().position(|octet| *octet == b'=').unwrap_or(parameter.len());
    let name = parameter.get(..equals).unwrap_or_default().trim_ascii();
    if is_in(&TAGS, name) {
        uri::hide_all_in(octets, run, hider);
    } else if name.eq_ignore_ascii_case(b"remote") {
        hide_words(octets, run.start + equals + 1..run.end, hider);
    } else {
        hider.text(octets, run);
    }
}

/// Calls for every piece that is not empty.
fn each(
    octets: &mut [u8],
    run: Range<usize>,
    is_between: impl Fn(u8) -> bool,
    mut call: impl FnMut(&mut [u8], Range<usize>),
) {
    let mut start = run.start;
    while start < run.end {
        let rest = octets.get(start..run.end).unwrap_or_default();
        let end = start + rest.iter().position(|octet| is_between(*octet)).unwrap_or(rest.len());
        if start < end {
            call(octets, start..end);
        }
        start = end + 1;
    }
}
