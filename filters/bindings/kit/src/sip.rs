//! SIP in a payload, without copies and without the host. What looks at it is bounded, takes broken SIP as far as it
//! makes sense, gives the same answers as the host's `sip-method` and `sip-header`, and never panics.

/// Octets of a message that are looked at for its start line and headers.
pub const OCTETS_MAX: usize = 16_384;
/// Lines of a message that are looked at, the start line among them.
pub const LINES_MAX: usize = 256;
/// Octets of a method's name. Those of the registry have at most 9.
const METHOD_OCTETS_MAX: usize = 32;

/// Long and compact names of headers (RFC 3261 and its extensions).
const COMPACT: [(&[u8], u8); 19] = [
    (b"call-id", b'i'),
    (b"contact", b'm'),
    (b"content-encoding", b'e'),
    (b"content-length", b'l'),
    (b"content-type", b'c'),
    (b"from", b'f'),
    (b"subject", b's'),
    (b"supported", b'k'),
    (b"to", b't'),
    (b"via", b'v'),
    (b"event", b'o'),
    (b"refer-to", b'r'),
    (b"referred-by", b'b'),
    (b"allow-events", b'u'),
    (b"accept-contact", b'a'),
    (b"reject-contact", b'j'),
    (b"request-disposition", b'd'),
    (b"session-expires", b'x'),
    (b"identity", b'y'),
];

/// A SIP message, or its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sip<'a> {
    start_line: &'a [u8],
    /// From the line after the start line on, as far as is looked at.
    behind: &'a [u8],
    /// The same, to the end of what was given.
    rest: &'a [u8],
}

/// A header line, with the lines that are folded onto it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// As it came, long or compact.
    pub name: &'a [u8],
    /// Without the white space around it. Of a folded one what its lines hold, line ends and all.
    pub value: &'a [u8],
}

impl Header<'_> {
    /// Whether it is the header of that name, whatever the case, long or compact.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        Wanted::new(name.as_bytes()).is(self.name)
    }
}

impl<'a> Sip<'a> {
    /// The message in a payload, behind empty lines. `None` if its first line does not say SIP.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let part = payload.get(..OCTETS_MAX).unwrap_or(payload);
        let start = part.iter().position(|octet| !matches!(octet, b'\r' | b'\n'))?;
        let (start_line, behind) = split_line(part.get(start..)?);
        let is_sip = says_sip(start_line);
        let rest = payload.get(part.len() - behind.len()..)?;
        is_sip.then_some(Self { start_line, behind, rest })
    }

    /// The first line, without its end.
    #[must_use]
    pub const fn start_line(&self) -> &'a [u8] {
        self.start_line
    }

    /// Whether something stands behind the start line: otherwise it may have been cut.
    #[must_use]
    pub(crate) const fn has_whole_start_line(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Whether it is a response: its first line begins with a version.
    #[must_use]
    pub fn is_response(&self) -> bool {
        starts_with_ignoring_case(self.start_line, b"SIP/")
    }

    /// The status of a response, 100 to 999.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        if !self.is_response() {
            return None;
        }
        let status = words(self.start_line).nth(1)?;
        let number = std::str::from_utf8(status).ok()?.parse().ok()?;
        (status.len() == 3 && (100..=999).contains(&number)).then_some(number)
    }

    /// The URI of a request, as it came.
    #[must_use]
    pub fn request_uri(&self) -> Option<&'a [u8]> {
        if self.is_response() {
            return None;
        }
        let mut words = words(self.start_line);
        let uri = words.nth(1)?;
        // Without a version behind it, it is not known to be whole.
        words.next().map(|_| uri)
    }

    /// The method of a request, or that in the CSeq of a response.
    #[must_use]
    pub fn method(&self) -> Option<&'a [u8]> {
        if self.is_response() {
            return self.cseq_method();
        }
        // A request ends with its version; without that, any text could be one.
        let version = self.start_line.rsplit(|octet| *octet == b' ').next()?;
        if !starts_with_ignoring_case(version, b"SIP/") {
            return None;
        }
        let end = position(self.start_line, b' ')?;
        method_in(self.start_line.get(..end)?).filter(|method| method.len() == end)
    }

    /// The method in the CSeq.
    #[must_use]
    pub fn cseq_method(&self) -> Option<&'a [u8]> {
        cseq_method(self.header("CSeq")?)
    }

    /// The Call-ID.
    #[must_use]
    pub fn call_id(&self) -> Option<&'a [u8]> {
        self.header("Call-ID")
    }

    /// The value of a header, without the white space around it; the first one if there are several. The name in any
    /// case, long or compact.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.search(name).0
    }

    /// The headers in order. Lines that are none are left out.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        Headers { octets: self.behind, at: 0, lines_left: LINES_MAX - 1, at_body: false }
    }

    /// What stands behind the headers; `None` if they do not end in what is looked at.
    #[must_use]
    pub fn body(&self) -> Option<&'a [u8]> {
        let mut headers = self.headers();
        while headers.next().is_some() {}
        if headers.at_body { self.rest.get(headers.at..) } else { None }
    }

    /// The value of a header, and whether more octets would have said the same.
    pub(crate) fn search(&self, name: &str) -> (Option<&'a [u8]>, bool) {
        let wanted = Wanted::new(name.as_bytes());
        let mut headers = self.headers();
        let value = headers.find_wanted(&wanted).map(|header| header.value);
        let is_certain = headers.at_body
            || headers.lines_left == 0
            || self.behind.len() < self.rest.len()
            // The line's end was seen, and that of what may be folded onto it.
            || value.is_some() && headers.at < headers.octets.len();
        (value, is_certain)
    }
}

/// Iterates over the headers of a message.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    octets: &'a [u8],
    at: usize,
    lines_left: usize,
    /// The empty line between headers and body is behind us.
    at_body: bool,
}

impl<'a> Headers<'a> {
    /// Where the next line begins, and the line without its end.
    #[inline]
    fn line(&mut self) -> Option<(usize, &'a [u8])> {
        let rest = self.octets.get(self.at..).filter(|rest| !rest.is_empty() && self.lines_left > 0)?;
        let (line, behind) = split_line(rest);
        let start = self.at;
        self.at = self.octets.len() - behind.len();
        self.lines_left -= 1;
        Some((start, line))
    }

    #[inline]
    fn next_is_folded(&self) -> bool {
        self.octets.get(self.at).is_some_and(|octet| matches!(octet, b' ' | b'\t'))
    }
}

impl<'a> Headers<'a> {
    /// The next header of that name. Lines that begin otherwise are passed by without a closer look.
    #[inline]
    fn find_wanted(&mut self, wanted: &Wanted<'_>) -> Option<Header<'a>> {
        self.find_line(|line| wanted.may_be(line), |name| wanted.is(name))
    }

    /// The next header whose line and whose name will do.
    #[inline]
    fn find_line(
        &mut self,
        line_will_do: impl Fn(&[u8]) -> bool,
        name_will_do: impl Fn(&[u8]) -> bool,
    ) -> Option<Header<'a>> {
        while !self.at_body {
            let is_folded = self.next_is_folded();
            let (start, line) = self.line()?;
            if line.is_empty() {
                self.at_body = true;
                break;
            }
            if is_folded || !line_will_do(line) {
                continue;
            }
            let Some(colon) = position(line, b':') else { continue };
            let name = line.get(..colon)?.trim_ascii();
            if !name_will_do(name) {
                continue;
            }
            let mut end = start + line.len();
            while self.next_is_folded() {
                let Some((start, line)) = self.line() else { break };
                end = start + line.len();
            }
            let value = self.octets.get(start + colon + 1..end)?.trim_ascii();
            return Some(Header { name, value });
        }
        None
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    #[inline]
    fn next(&mut self) -> Option<Header<'a>> {
        self.find_line(|_| true, |_| true)
    }
}

/// The method in the value of a CSeq header.
#[must_use]
pub fn cseq_method(value: &[u8]) -> Option<&[u8]> {
    let (_, method) = value.split_at_checked(value.iter().position(u8::is_ascii_whitespace)?)?;
    method_in(method.trim_ascii_start())
}

/// The URI in the value of a From, To, Contact or the like: what stands in `<>`, or before the parameters.
#[must_use]
pub fn uri(value: &[u8]) -> Option<&[u8]> {
    let mut rest = value.trim_ascii_start();
    if let [b'"', quoted @ ..] = rest {
        // A display name may hold anything, `<` too.
        rest = behind_quotes(quoted)?;
    }
    let uri = match position(rest, b'<') {
        Some(open) => {
            let uri = rest.get(open + 1..)?;
            uri.get(..position(uri, b'>').unwrap_or(uri.len()))?
        }
        None => rest.split(|octet| matches!(octet, b';' | b',' | b'?') || octet.is_ascii_whitespace()).next()?,
    };
    Some(uri.trim_ascii()).filter(|uri| !uri.is_empty())
}

/// The user of a SIP or SIPS URI, or the number of a TEL URI, without passwords and parameters.
#[must_use]
pub fn user(uri: &[u8]) -> Option<&[u8]> {
    let colon = position(uri, b':')?;
    let (scheme, rest) = uri.split_at_checked(colon)?;
    let rest = rest.get(1..)?;
    let part = if scheme.eq_ignore_ascii_case(b"tel") {
        rest
    } else if scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips") {
        rest.get(..position(rest, b'@')?)?
    } else {
        return None;
    };
    let user = part.split(|octet| matches!(octet, b';' | b':')).next()?;
    Some(user).filter(|user| !user.is_empty())
}

/// The value of a parameter in a header's value, without quotes around it: `a` of `x;p=a` and of `p="a";q`. The name in
/// any case.
#[must_use]
pub fn parameter<'a>(value: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = value;
    while !rest.is_empty() {
        let (part, behind) = split_parameter(rest);
        rest = behind;
        let Some(equals) = position(part, b'=') else { continue };
        let (found, value) = part.split_at_checked(equals)?;
        if found.trim_ascii().eq_ignore_ascii_case(name.as_bytes()) {
            let value = value.get(1..)?.trim_ascii();
            let unquoted = value.strip_prefix(b"\"").map(|value| value.strip_suffix(b"\"").unwrap_or(value));
            return Some(unquoted.unwrap_or(value));
        }
    }
    None
}

/// What stands before the next `;` that is in no quotes, and what behind it.
fn split_parameter(octets: &[u8]) -> (&[u8], &[u8]) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = octets.iter().position(|octet| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match octet {
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b';' => return !is_quoted,
            _ => {}
        }
        false
    });
    let (part, behind) = octets.split_at_checked(end.unwrap_or(octets.len())).unwrap_or((octets, &[]));
    (part, behind.get(1..).unwrap_or_default())
}

/// What stands behind the quotes that are open.
fn behind_quotes(quoted: &[u8]) -> Option<&[u8]> {
    let mut is_escaped = false;
    let end = quoted.iter().position(|octet| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        is_escaped = *octet == b'\\' && !was_escaped;
        *octet == b'"' && !was_escaped
    })?;
    quoted.get(end + 1..)
}

/// A line without its end, and what stands behind that: CR LF, LF, or CR alone, as broken senders write any of them.
#[inline]
fn split_line(octets: &[u8]) -> (&[u8], &[u8]) {
    let end = line_length(octets);
    let (line, behind) = octets.split_at_checked(end).unwrap_or((octets, &[]));
    match behind {
        [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => (line, rest),
        [] => (line, behind),
    }
}

/// Octets before the first end of a line.
#[inline]
fn line_length(octets: &[u8]) -> usize {
    let (chunks, rest) = octets.as_chunks::<16>();
    for (place, chunk) in chunks.iter().enumerate() {
        if let Some(end) = line_end(chunk) {
            return place * 16 + end;
        }
    }
    let end = rest.iter().position(|octet| matches!(octet, b'\r' | b'\n'));
    chunks.len() * 16 + end.unwrap_or(rest.len())
}

/// Where a line ends in sixteen octets: all of them in one step where the target can.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline]
fn line_end(chunk: &[u8; 16]) -> Option<usize> {
    use std::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_splat, u64x2, v128_or};
    let ([low, high], _) = chunk.as_chunks::<8>() else { return None };
    let octets = u64x2(u64::from_le_bytes(*low), u64::from_le_bytes(*high));
    let ends = v128_or(u8x16_eq(octets, u8x16_splat(b'\r')), u8x16_eq(octets, u8x16_splat(b'\n')));
    match u8x16_bitmask(ends) {
        0 => None,
        mask => usize::try_from(mask.trailing_zeros()).ok(),
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline]
fn line_end(chunk: &[u8; 16]) -> Option<usize> {
    chunk.iter().position(|octet| matches!(octet, b'\r' | b'\n'))
}

#[inline]
fn position(octets: &[u8], wanted: u8) -> Option<usize> {
    octets.iter().position(|octet| *octet == wanted)
}

/// A header's name, long and compact.
struct Wanted<'a> {
    name: &'a [u8],
    /// Its other form: of a letter the long one, of a long one the letter.
    long: Option<&'static [u8]>,
    letter: Option<u8>,
    /// With which a line may begin, in small letters.
    begins: [u8; 2],
}

impl<'a> Wanted<'a> {
    #[inline]
    fn new(name: &'a [u8]) -> Self {
        let (mut long, mut letter) = (None, None);
        match name {
            [short] => {
                long = COMPACT.iter().find(|(_, known)| short.eq_ignore_ascii_case(known)).map(|(long, _)| *long)
            }
            name => letter = COMPACT.iter().find(|(long, _)| name.eq_ignore_ascii_case(long)).map(|(_, short)| *short),
        }
        let first = |name: &[u8]| name.first().map(u8::to_ascii_lowercase);
        let own = first(name).unwrap_or(b':');
        Self { name, long, letter, begins: [own, letter.or_else(|| long.and_then(first)).unwrap_or(own)] }
    }

    /// Whether a line may be that header, by its first octet.
    #[inline]
    fn may_be(&self, line: &[u8]) -> bool {
        let Some(first) = line.first().map(u8::to_ascii_lowercase) else { return false };
        // White space, which is no part of the name, may stand before it.
        first == self.begins[0] || first == self.begins[1] || first <= b' '
    }

    #[inline]
    fn is(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name)
            || self.long.is_some_and(|long| name.eq_ignore_ascii_case(long))
            || matches!((name, self.letter), ([short], Some(letter)) if short.eq_ignore_ascii_case(&letter))
    }
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|octet| *octet == b' ').filter(|word| !word.is_empty())
}

/// It stands at the end of a request's first line and at the beginning of a response's; anywhere will do.
#[inline]
fn says_sip(line: &[u8]) -> bool {
    starts_with_ignoring_case(line, b"SIP/")
        || line.ends_with(b" SIP/2.0")
        || line.windows(4).any(|part| part.eq_ignore_ascii_case(b"SIP/"))
}

fn starts_with_ignoring_case(octets: &[u8], start: &[u8]) -> bool {
    octets.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}

/// The token at the beginning.
fn method_in(octets: &[u8]) -> Option<&[u8]> {
    let is_token = |octet: &u8| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(octet);
    let end = octets.iter().position(|octet| !is_token(octet)).unwrap_or(octets.len());
    octets.get(..end).filter(|method| (1..=METHOD_OCTETS_MAX).contains(&method.len()))
}

#[cfg(test)]
#[path = "sip_tests.rs"]
mod tests;
