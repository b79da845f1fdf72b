//! The sub-commands behind main.
