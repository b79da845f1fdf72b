//! What ran, and whether it gave what it should.

use std::fmt::Debug;

/// The examples that ran.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<&'static str>);

impl Checks {
    /// An example ran, and what it gives is looked at elsewhere.
    pub(crate) fn ran(&mut self, example: &'static str) {
        self.0.push(example);
    }

    /// An example gave that, and should have given this.
    #[track_caller]
    pub(crate) fn is<T: Debug + PartialEq>(&mut self, example: &'static str, given: T, wanted: T) {
        assert_eq!(given, wanted, "{example}");
        self.ran(example);
    }

    /// Each of them, as often as it ran.
    pub(crate) fn names(self) -> Vec<&'static str> {
        self.0
    }
}
