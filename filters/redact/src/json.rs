//! JSON, hidden where it stands: every octet that stays is one that was there, and what is JSON stays JSON.
//!
//! What the names of members vouch for is in [`members`](crate::members). Here is the walk: over tokens, with a bounded
//! memory of what is open, and without trust. A comma too much or too little is not minded, as real agents send them;
//! what cannot be read as tokens, what is cut off and what is too deep is refused.

use std::ops::Range;

use crate::hide::Hider;
use crate::members::{Class, Names};
use crate::{escapes, value};

/// How deep brackets may stand in each other: five is what agents do.
const DEPTH_MAX: usize = 32;
/// Words that are values; C prints the later ones for numbers that are none.
const WORDS: [&[u8]; 6] = [b"true", b"false", b"null", b"nan", b"inf", b"infinity"];

/// A bracket that was opened, and what the next value in it is.
#[derive(Clone, Copy)]
struct Open {
    is_object: bool,
    next: Class,
}

struct Walk<'a> {
    octets: &'a mut [u8],
    at: usize,
    open: [Open; DEPTH_MAX],
    depth: usize,
    names: &'a Names<'a>,
    hider: &'a Hider,
}

/// Hides in place. `false`: it is not JSON, and what was done to it is worth nothing. Several values in a row are
/// taken, and NULs behind them.
pub fn hide(octets: &mut [u8], names: &Names<'_>, hider: &Hider) -> bool {
    let open = [Open { is_object: false, next: Class::Hidden }; DEPTH_MAX];
    let mut walk = Walk { octets, at: 0, open, depth: 0, names, hider };
    while let Some(octet) = walk.octets.get(walk.at).copied() {
        if walk.token(octet).is_none() {
            return false;
        }
    }
    walk.depth == 0
}

impl Walk<'_> {
    /// Goes behind the token that begins here. `None`: it is none.
    fn token(&mut self, octet: u8) -> Option<()> {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' | b'\0' => self.at += 1,
            b',' => {
                let _ = self.next_class();
                self.at += 1;
            }
            b'{' | b'[' => self.enter(octet == b'{')?,
            b'}' | b']' => self.leave(octet == b'}')?,
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word()?,
        }
        Some(())
    }

    fn innermost(&mut self) -> Option<&mut Open> {
        self.depth.checked_sub(1).and_then(|place| self.open.get_mut(place))
    }

    /// What the value that begins is. A name counts for one value, and for all those in a list.
    fn next_class(&mut self) -> Class {
        let class_of_others = self.names.unnamed();
        match self.innermost() {
            None => class_of_others,
            Some(open) if open.is_object => std::mem::replace(&mut open.next, class_of_others),
            Some(open) => open.next,
        }
    }

    fn enter(&mut self, is_object: bool) -> Option<()> {
        let class = self.next_class();
        let next = if is_object { self.names.unnamed() } else { class };
        *self.open.get_mut(self.depth)? = Open { is_object, next };
        self.depth += 1;
        self.at += 1;
        Some(())
    }

    fn leave(&mut self, is_object: bool) -> Option<()> {
        let open = self.innermost()?;
        if open.is_object != is_object {
            return None;
        }
        self.depth -= 1;
        self.at += 1;
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        let start = self.at + 1;
        let rest = self.octets.get(start..).unwrap_or_default();
        let length = escapes::length(rest)?;
        let content = start..start + length.whole;
        self.at = content.end + 1;
        let behind = self.octets.get(self.at..).unwrap_or_default();
        let blanks = behind.iter().take_while(|octet| octet.is_ascii_whitespace()).count();
        if behind.get(blanks) == Some(&b':') {
            self.at += blanks + 1;
            let next = self.name(content);
            let open = self.innermost().filter(|open| open.is_object)?;
            open.next = next;
        } else {
            let class = self.next_class();
            value::hide_string(self.octets, content, length.is_escaped, class, self.hider);
        }
        Some(())
    }

    /// What the member's value is. A name that is not known may be anything, a user for example.
    fn name(&mut self, name: Range<usize>) -> Class {
        let octets = self.octets.get(name.clone()).unwrap_or_default();
        if let Some(class) = self.names.class_of(octets) {
            return class;
        }
        if octets.contains(&b'\\') {
            self.hider.octets(self.octets, name);
        } else {
            self.hider.user(self.octets, name);
        }
        self.names.unnamed()
    }

    fn number(&mut self) {
        let rest = self.octets.get(self.at..).unwrap_or_default();
        let is_part = |octet: &u8| octet.is_ascii_digit() || matches!(octet, b'+' | b'-' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(|octet| is_part(octet)).count();
        let run = self.at..self.at + length;
        self.at = run.end;
        let class = self.next_class();
        value::hide_number(self.octets, run, class, self.hider);
    }

    fn word(&mut self) -> Option<()> {
        let rest = self.octets.get(self.at..).unwrap_or_default();
        let word = rest.get(..rest.iter().take_while(|octet| octet.is_ascii_alphanumeric()).count())?;
        if !WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)) {
            return None;
        }
        self.at += word.len();
        let _ = self.next_class();
        Some(())
    }
}
