//! The octets of a JSON string and what they mean. With no opinion about what is hidden.

/// Of a string, up to its closing quote.
pub struct Length {
    pub whole: usize,
    /// A backslash is in it.
    pub is_escaped: bool,
}

/// How long the string is that begins here, behind its quote. `None`: it has no end.
pub fn length(rest: &[u8]) -> Option<Length> {
    let (mut whole, mut is_escaped) = (0, false);
    loop {
        whole += rest.get(whole..)?.iter().position(|octet| matches!(octet, b'"' | b'\\'))?;
        if rest.get(whole) == Some(&b'"') {
            return Some(Length { whole, is_escaped });
        }
        is_escaped = true;
        whole += 2;
    }
}

/// What a string means, in UTF-8. `None`: an escape in it is none.
pub fn read(raw: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(octet) = raw.get(at) {
        if *octet != b'\\' {
            text.push(*octet);
            at += 1;
            continue;
        }
        let meant = match raw.get(at + 1)? {
            same @ (b'"' | b'\\' | b'/') => *same,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (letter, length) = letter(raw.get(at..)?)?;
                text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                at += length;
                continue;
            }
            _ => return None,
        };
        text.push(meant);
        at += 2;
    }
    Some(text)
}

/// The letter that `\uXXXX` means, or two of them, and how many octets they have.
fn letter(raw: &[u8]) -> Option<(char, usize)> {
    let first = unit(raw)?;
    if let Some(letter) = char::from_u32(first) {
        return Some((letter, 6));
    }
    let second = unit(raw.get(6..)?)?;
    let letter = char::decode_utf16([u16::try_from(first).ok()?, u16::try_from(second).ok()?]).next()?.ok()?;
    Some((letter, 12))
}

fn unit(raw: &[u8]) -> Option<u32> {
    let digits = raw.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// The string that means this text: as short as it can be.
pub fn write(text: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(text.len() + 8);
    for octet in text {
        match octet {
            b'"' | b'\\' => raw.extend([b'\\', *octet]),
            0x08 => raw.extend(b"\\b"),
            0x0c => raw.extend(b"\\f"),
            b'\n' => raw.extend(b"\\n"),
            b'\r' => raw.extend(b"\\r"),
            b'\t' => raw.extend(b"\\t"),
            0..0x20 => raw.extend(format!("\\u{octet:04x}").into_bytes()),
            _ => raw.push(*octet),
        }
    }
    raw
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn a_string_ends_at_the_quote_that_is_not_escaped() {
        for (rest, whole, is_escaped) in
            [(&b"\""[..], 0, false), (b"alice\",1", 5, false), (b"a\\\"b\"", 4, true), (b"a\\\\\"b\"", 3, true)]
        {
            let length = length(rest).unwrap();
            assert_eq!((length.whole, length.is_escaped), (whole, is_escaped), "{}", rest.escape_ascii());
        }
        for rest in [&b""[..], b"alice", b"a\\\"", b"a\\"] {
            assert!(length(rest).is_none(), "{}", rest.escape_ascii());
        }
    }

    #[test]
    fn what_is_written_means_what_was_read() {
        for (raw, text) in [
            (r"a\/b\u0040c", "a/b@c"),
            (r#"\"Alice\" \\ \b\f\n\r\t\u0001"#, "\"Alice\" \\ \u{8}\u{c}\n\r\t\u{1}"),
            (r"\u00e9\ud83d\ude00", "é😀"),
            ("é", "é"),
        ] {
            let read_text = read(raw.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(read_text.clone()).unwrap(), text);
            let written = write(&read_text);
            assert!(written.len() <= raw.len());
            assert_eq!(read(&written).unwrap(), read_text);
        }
        for raw in [r"\x", r"\", r"\u12", r"\u12g4", r"\ud83d", r"\ud83d\u0041", r"\ude00"] {
            assert_eq!(read(raw.as_bytes()), None, "{raw}");
        }
    }
}
