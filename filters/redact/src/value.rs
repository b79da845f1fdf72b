//! What becomes of one value of JSON.

use std::ops::Range;

use crate::hide::Hider;
use crate::members::Class;
use crate::{escapes, ids, sip, uri};

/// What stands where a digit was: a number may begin with it, which it may not with a zero.
const DIGIT: u8 = b'1';
/// The longest string that is taken for a figure.
const FIGURE_OCTETS_MAX: usize = 20;

/// Hides a string. `content` is what stands between its quotes.
pub fn hide_string(octets: &mut [u8], content: Range<usize>, is_escaped: bool, class: Class, hider: &Hider) {
    if !is_escaped || class == Class::Hidden {
        return hide_text(octets, content, class, hider);
    }
    if class == Class::CallId && !hider.hides_call_ids() {
        return;
    }
    let raw = octets.get(content.clone()).unwrap_or_default();
    let Some(meant) = escapes::read(raw) else { return hider.octets(octets, content) };
    let mut text = meant.clone();
    let all = 0..text.len();
    hide_text(&mut text, all, class, hider);
    if text != meant {
        put(octets, content, &escapes::write(&text), hider);
    }
}

/// Puts a shorter string in the place of another; blanks fill up, behind the closing quote, where they mean nothing.
fn put(octets: &mut [u8], content: Range<usize>, raw: &[u8], hider: &Hider) {
    let with_quote = content.start..content.end + 1;
    match octets.get_mut(with_quote).and_then(|place| place.split_at_mut_checked(raw.len())) {
        Some((string, [quote, blanks @ ..])) => {
            string.copy_from_slice(raw);
            *quote = b'"';
            blanks.fill(b' ');
        }
        // Octets that should have been escaped were not.
        _ => hider.octets(octets, content),
    }
}

/// Hides a number: all digits are then the same one, and it is still a number.
pub fn hide_number(octets: &mut [u8], run: Range<usize>, class: Class, hider: &Hider) {
    let stays = match class {
        Class::Word | Class::Figure => true,
        Class::CallId => !hider.hides_call_ids(),
        Class::User | Class::Hidden => false,
    };
    if let (false, Some(number)) = (stays, octets.get_mut(run)) {
        number.iter_mut().filter(|octet| octet.is_ascii_digit()).for_each(|digit| *digit = DIGIT);
    }
}

fn hide_text(octets: &mut [u8], run: Range<usize>, class: Class, hider: &Hider) {
    let text = octets.get(run.clone()).unwrap_or_default();
    match class {
        Class::Hidden => hider.octets(octets, run),
        Class::CallId => ids::hide_words(octets, run, hider),
        Class::User => hide_user(octets, run, hider),
        Class::Word if text.contains(&b'@') => hide_user(octets, run, hider),
        Class::Word => uri::hide_all_in(octets, run, hider),
        Class::Figure if is_figure(text) => {}
        Class::Figure => hider.octets(octets, run),
    }
}

/// Digits, and what stands between them in figures and times.
fn is_figure(text: &[u8]) -> bool {
    text.len() <= FIGURE_OCTETS_MAX
        && text.iter().all(|octet| octet.is_ascii_digit() || matches!(octet, b'.' | b'-' | b':'))
}

/// Somebody: a bare user, or an address in any form that a header has.
fn hide_user(octets: &mut [u8], run: Range<usize>, hider: &Hider) {
    let text = octets.get(run.clone()).unwrap_or_default();
    let is_special = |octet: &u8| {
        octet.is_ascii_whitespace() || matches!(octet, b'@' | b':' | b';' | b',' | b'<' | b'>' | b'"' | b'?' | b'\0')
    };
    if text.iter().any(is_special) {
        sip::hide_names(octets, run, hider);
    } else {
        hider.user(octets, run);
    }
}
