//! Sentences for people, and the figures in them.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};

/// Prints a line on standard error. It may be closed; then there is nobody left to tell.
pub(super) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `1 packet`, `1 234 packets`.
pub(super) fn count(count: u64, what: &str) -> String {
    format!("{} {what}{}", Grouped(count), if count == 1 { "" } else { "s" })
}

/// A number with its digits in groups of three: `1 234 567`.
pub(super) struct Grouped(pub(super) u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_char(' ')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped_and_one_is_singular() {
        assert_eq!(count(0, "packet"), "0 packets");
        assert_eq!(count(1, "packet"), "1 packet");
        assert_eq!(count(999, "octet"), "999 octets");
        assert_eq!(count(1_234_567, "octet"), "1 234 567 octets");
    }
}
